"""Bytes on the wire for an update, by this project's patches and by other tools, each checked by applying it.

`python -m scripts.bench.hosttools` makes the pairs and prints the table. What a tool keeps on the server only does not
count; what a device would fetch does: a patch, or the new index and the chunks that it lacks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from pathlib import Path
from typing import Final

from scripts.bench.pairs import TOP, Pair, pairs
from scripts.image.cache import default_cache_dir
from scripts.image.run import BuildError

PAYLOADS: Final = ("kernel.itb", "rootfs.erofs")
OURS: Final = "zentri"
TIMEOUT_S: Final = 3600

Say = Callable[[str], object]


@dataclass(frozen=True)
class HostRow:
    """One engine on one pair, both payloads together."""

    pair: str
    engine: str
    wire_bytes: int
    encode_s: float
    peak_rss_bytes: int | None
    """Of the program that applied the patch on the host; None: it was not applied by a program of its own."""


@dataclass(frozen=True)
class _Done:
    """What one engine made of one payload."""

    wire_bytes: int
    encode_s: float
    peak_rss_bytes: int | None = None


def _run(*command: str | Path) -> tuple[float, int]:
    """Run a program; return its seconds and its largest resident size (bytes). Raises BuildError when it fails."""
    words = [str(word) for word in command]
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=TOP)
        except FileNotFoundError as error:
            raise BuildError(f"{words[0]} is not installed; see scripts/bench/host-packages.txt") from error
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise BuildError(f"{words[0]} failed: {output.read()[-2000:].decode(errors='replace')}")
    return time.monotonic() - start, usage.ru_maxrss * 1024


def _check_same(made: Path, wanted: Path, engine: str) -> None:
    if made.stat().st_size != wanted.stat().st_size or made.read_bytes() != wanted.read_bytes():
        raise BuildError(f"{engine} did not make {wanted.name} of what it would send")


def _ours(old: Path, new: Path, work: Path) -> _Done:
    patch, made = work / "patch", work / "made"
    seconds, _ = _run(sys.executable, "-m", "scripts.bench.applying", "encode", old, new, patch)
    _, peak = _run(sys.executable, "-m", "scripts.bench.applying", "apply", old, patch, made)
    _check_same(made, new, OURS)
    return _Done(patch.stat().st_size, seconds, peak)


def _xdelta3(old: Path, new: Path, work: Path) -> _Done:
    patch, made = work / "patch", work / "made"
    # The window for the old file as large as it is, so that nothing of it is out of reach.
    window = str(max(1 << 20, old.stat().st_size))
    seconds, _ = _run("xdelta3", "-e", "-9", "-B", window, "-s", old, new, patch)
    _, peak = _run("xdelta3", "-d", "-B", window, "-s", old, patch, made)
    _check_same(made, new, "xdelta3")
    return _Done(patch.stat().st_size, seconds, peak)


def _zstd(old: Path, new: Path, work: Path) -> _Done:
    patch, made = work / "patch", work / "made"
    seconds, _ = _run("zstd", "-q", "-19", "--long=27", f"--patch-from={old}", new, "-o", patch)
    _, peak = _run("zstd", "-q", "-d", "--long=27", f"--patch-from={old}", patch, "-o", made)
    _check_same(made, new, "zstd-patch-from")
    return _Done(patch.stat().st_size, seconds, peak)


def _bsdiff(old: Path, new: Path, work: Path) -> _Done:
    patch, made = work / "patch", work / "made"
    seconds, _ = _run("bsdiff", old, new, patch)
    _, peak = _run("bspatch", old, made, patch)
    _check_same(made, new, "bsdiff")
    return _Done(patch.stat().st_size, seconds, peak)


def _zchunk(old: Path, new: Path, work: Path) -> _Done:
    before, after = work / "old.zck", work / "new.zck"
    _run("zck", "-o", before, old)
    seconds, _ = _run("zck", "-o", after, new)
    told = subprocess.run(["zck_delta_size", str(before), str(after)], capture_output=True, text=True, check=True)
    found = re.search(r"Would download (\d+) of \d+ bytes", told.stdout)
    if found is None:
        raise BuildError(f"zck_delta_size says something else than expected: {told.stdout[:500]}")
    (work / "unpacked").mkdir()
    _run("unzck", "-c", after)
    return _Done(int(found[1]), seconds)


def _casync(old: Path, new: Path, work: Path) -> _Done:
    stores = work / "old.castr", work / "new.castr"
    index, made = work / "new.caibx", work / "made"
    _run("casync", "make", f"--store={stores[0]}", work / "old.caibx", old)
    seconds, _ = _run("casync", "make", f"--store={stores[1]}", index, new)
    had = {path.name for path in stores[0].rglob("*.cacnk")}
    missing = sum(path.stat().st_size for path in stores[1].rglob("*.cacnk") if path.name not in had)
    _, peak = _run("casync", "extract", f"--store={stores[1]}", index, made)
    _check_same(made, new, "casync")
    return _Done(missing + index.stat().st_size, seconds, peak)


ENGINES: Final[dict[str, Callable[[Path, Path, Path], _Done]]] = {
    OURS: _ours,
    "xdelta3": _xdelta3,
    "zstd-patch-from": _zstd,
    "bsdiff": _bsdiff,
    "zchunk": _zchunk,
    "casync": _casync,
}


def host_rows(some_pairs: Iterable[Pair], say: Say, engines: Sequence[str] = tuple(ENGINES)) -> list[HostRow]:
    """Return a row for each pair and engine. Raises BuildError when a tool is missing, fails, or makes something else."""
    rows = []
    for pair in some_pairs:
        for engine in engines:
            say(f"{pair.name}: {engine}")
            done = []
            for name in PAYLOADS:
                work = Path(tempfile.mkdtemp(prefix="zentri-bench-"))
                try:
                    done.append(ENGINES[engine](pair.old / name, pair.new / name, work))
                finally:
                    shutil.rmtree(work)
            peaks = [part.peak_rss_bytes for part in done if part.peak_rss_bytes is not None]
            wire, seconds = sum(part.wire_bytes for part in done), sum(part.encode_s for part in done)
            rows.append(HostRow(pair.name, engine, wire, round(seconds, 2), max(peaks, default=None)))
    return rows


def table(rows: Sequence[HostRow]) -> str:
    """Return the rows as a table: bytes, and how much this project's patch is of each (geometric mean at the end)."""
    engines = list(dict.fromkeys(row.engine for row in rows))
    sizes = {(row.pair, row.engine): row.wire_bytes for row in rows}
    lines = ["| pair | " + " | ".join(engines) + " |", "|---" * (len(engines) + 1) + "|"]
    quotients: dict[str, list[float]] = {engine: [] for engine in engines}
    for pair in dict.fromkeys(row.pair for row in rows):
        cells = []
        for engine in engines:
            size, own = sizes.get((pair, engine)), sizes.get((pair, OURS))
            if size is None or own is None:
                cells.append("")
                continue
            quotients[engine].append(own / size)
            cells.append(f"{size:,}" if engine == OURS else f"{size:,} ({own / size:.3f})")
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    means = [exp(sum(map(log, some)) / len(some)) if some else 0.0 for some in quotients.values()]
    lines.append("| this of it, geometric mean | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.hosttools", description=__doc__)
    parser.add_argument("--pairs", default="", metavar="NAME,…", help="only these pairs")
    parser.add_argument("--engines", default=",".join(ENGINES), metavar="NAME,…", help="default: %(default)s")
    parser.add_argument("--cache", type=Path, default=default_cache_dir(), help="build cache (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the rows as JSON to this file")
    options = parser.parse_args(argv)

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    engines = [name for name in options.engines.split(",") if name]
    if unknown := set(engines) - set(ENGINES):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}")
    try:
        found = pairs(options.cache, say)
        wanted = [pair for pair in found if not options.pairs or pair.name in options.pairs.split(",")]
        rows = host_rows(wanted, say, engines)
    except (BuildError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
