"""Starts the network probe (`zentrid.netprobe`) and reads what it tells; ends it when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Final

from zentrid.core.probes import MAX_ADDRESSES, MAX_COUNT, MAX_LINE_BYTES, Failed, News, ProbeError, parse_news
from zentrid.core.text import printable

log = logging.getLogger(__name__)

PROBE_ARGV: Final = (sys.executable, "-s", "-m", "zentrid.netprobe")
SILENCE_S: Final = 30.0
"""The longest wait for the next line: the resolver asks each name server twice before it gives up."""
_END_S: Final = 2.0
_KEPT_BYTES: Final = 2000
_MAX_NEWS: Final = max(MAX_ADDRESSES, MAX_COUNT) + 2


class NetworkProbe:
    """Runs probes, each a process of its own."""

    def __init__(self, argv: Sequence[str] = PROBE_ARGV, silence_s: float = SILENCE_S) -> None:
        self._argv = tuple(argv)
        self._silence_s = silence_s

    async def ping(self, host: str, count: int) -> AsyncGenerator[News, None]:
        """Yield the address, then what became of each of `count` packets. Raises ProbeError. Close it when done."""
        async with aclosing(self._news("ping", host, str(count))) as all_news:
            async for news in all_news:
                yield news

    async def resolve(self, name: str) -> AsyncGenerator[News, None]:
        """Yield the addresses of a name. Raises ProbeError. Close it when done."""
        async with aclosing(self._news("resolve", name)) as all_news:
            async for news in all_news:
                yield news

    async def _news(self, *words: str) -> AsyncGenerator[News, None]:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
            )
        except OSError as error:
            raise ProbeError(f"The network probe cannot be started ({error.strerror}); try again.") from error
        try:
            for _ in range(_MAX_NEWS):
                line = await self._line(process)
                if not line:
                    return
                news = parse_news(line)
                if isinstance(news, Failed):
                    raise ProbeError(news.sentence)
                yield news
        finally:
            await _end(process)

    async def _line(self, process: asyncio.subprocess.Process) -> bytes:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._silence_s):
                return await process.stdout.readline()
        except TimeoutError:
            raise ProbeError(f"There was no answer within {self._silence_s:g} s; is the network up?") from None
        except ValueError:
            raise ProbeError("The network probe failed inside the device; try again.") from None


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process if it still runs, and wait for it."""
    with suppress(ProcessLookupError):
        process.kill()
    assert process.stderr is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            said = await process.stderr.read(_KEPT_BYTES)
            if said:
                log.warning("network probe: %s", printable(said.decode(errors="replace"), keep="\n"))
            await process.wait()
    process._transport.close()  # type: ignore[attr-defined]  # nothing else closes the pipes
