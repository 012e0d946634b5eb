"""The engines that are measured on the host: what each would send for a pair. They install nothing by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from scripts.bench import hosttools
from scripts.bench.pairs import Pair
from scripts.bench.rows import OUR_PATCH, OURS, Row

HOST_ENGINES: Final = tuple(OUR_PATCH if name == OURS else name for name in hosttools.ENGINES)


def host_rows(pair: Pair, engines: Sequence[str], say: Callable[[str], None]) -> list[Row]:
    """Return a row for each of `engines`. Raises BuildError, OSError or SubprocessError."""
    names = [OURS if name == OUR_PATCH else name for name in engines]
    return [
        Row(row.pair, OUR_PATCH if row.engine == OURS else row.engine, row.wire_bytes, None, row.peak_rss_bytes)
        for row in hosttools.host_rows([pair], say, names)
    ]
