"""The whole benchmark: every engine on every pair, with results kept, so that an interrupted run goes on where it was."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

from scripts.bench.boards import BenchError, Site, make_disk
from scripts.bench.bundles import PAYLOADS, Maker
from scripts.bench.engines import ENGINES, Bench
from scripts.bench.host import HOST_ENGINES, host_rows
from scripts.bench.image import KEEP, BenchBuilder
from scripts.bench.keys import Keys
from scripts.bench.labdms import BenchDms
from scripts.bench.pairs import Pair, pairs
from scripts.bench.rows import OUR_PATCH, OURS, Row, rows_from_json, rows_to_json
from scripts.bench.serve import FileServer
from scripts.board_driver.errors import BoardAssertionError, MachineError
from scripts.board_driver.places import built
from scripts.board_driver.ports import free_port
from scripts.image.cache import Cache, default_cache_dir, hash_files, key_of
from scripts.image.run import BuildError
from scripts.lab.places import KEYS, TOP, Places
from scripts.lab.tools import LabError
from scripts.lab.world import World
from zentrid.errors import ZentriError

RECIPE: Final = "1"
"""Raised by hand when a measurement changes for a reason that its inputs do not show."""
ATTEMPTS: Final = 2
"""A busy host may let a board miss a deadline once."""

MEASURING_CODE: Final = tuple(
    f"scripts/bench/{name}"
    for name in (
        "boards.py",
        "bundles.py",
        "engines.py",
        "image.py",
        "onboard.py",
        "prepare.sh",
        "raucstate.py",
        "serve.py",
    )
)
OUR_CODE: Final = ("zentrid", "dms_server", "scripts/bundle_tool", "scripts/bench/labdms.py")


FOLDER: Final = built("bench")


@dataclass
class Run:
    """One run of the benchmark."""

    say: Callable[[str], None]
    folder: Path = FOLDER
    failures: list[str] = field(default_factory=list)

    @cached_property
    def builder(self) -> BenchBuilder:
        """The image builder on this user's cache."""
        return BenchBuilder(TOP, Cache(default_cache_dir()), KEYS, self.say)

    @cached_property
    def keys(self) -> Keys:
        """The benchmark's keys."""
        keys = Keys(self.folder / "keys")
        keys.make(self.folder / "logs/keys.log")
        return keys

    def pairs(self, names: Sequence[str]) -> list[Pair]:
        """Return the pairs with these names, all for none. Raises BenchError for a name that there is not."""
        found = pairs(self.builder.cache.root, self.say)
        if unknown := set(names) - {pair.name for pair in found}:
            raise BenchError(
                f"there is no pair {', '.join(sorted(unknown))}; there are {', '.join(pair.name for pair in found)}"
            )
        return [pair for pair in found if not names or pair.name in names]

    def measure(self, chosen: Sequence[Pair], engines: Sequence[str]) -> list[Row]:
        """Return a row for each engine and pair. What could not be measured is told, is in `failures`, and has no row."""
        with self._alone(), ExitStack() as stack:
            kernel, tools = self.builder.bench_linux() / "Image", self.builder.tools(self.keys) / "tools.erofs"
            files = stack.enter_context(FileServer(self.folder / "nginx", self.folder / "served", self.keys))
            rows: list[Row] = []
            for pair in chosen:
                rows += self._pair(pair, engines, kernel, tools, files)
            for step, keep in KEEP.items():
                self.builder.cache.prune(step, keep)
        return rows

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two benchmarks at once would measure each other."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BenchError("another benchmark of this checkout is running; wait for its end") from error
            yield

    def _pair(self, pair: Pair, engines: Sequence[str], kernel: Path, tools: Path, files: FileServer) -> list[Row]:
        content = _digest(pair)
        found = {name: row for name in engines if (row := self._kept(pair, content, name, kernel)) is not None}
        missing = [name for name in engines if name not in found]
        self.say(f"pair {pair.name}: {len(found)} of {len(engines)} engines measured before")
        found |= self._host(pair, content, [name for name in missing if name in HOST_ENGINES], kernel)
        on_board = [name for name in missing if name in ENGINES]
        if on_board:
            found |= self._board(pair, content, on_board, kernel, tools, files)
        return [found[name] for name in engines if name in found]

    def _host(self, pair: Pair, content: str, engines: Sequence[str], kernel: Path) -> dict[str, Row]:
        if not engines:
            return {}
        self.say(f"{pair.name}: {', '.join(engines)} on the host")
        try:
            rows = host_rows(pair, engines, self.say)
        except (OSError, BuildError, SubprocessError, ValueError) as error:
            self._failed(pair.name, ", ".join(engines), error)
            return {}
        for row in rows:
            self._keep(row, pair, content, kernel)
        return {row.engine: row for row in rows}

    def _board(
        self, pair: Pair, content: str, engines: Sequence[str], kernel: Path, tools: Path, files: FileServer
    ) -> dict[str, Row]:
        found: dict[str, Row] = {}
        rom = self.builder.rom(production=False) / "rom.bin"
        image = make_disk(pair.old, rom, self.folder / "work/image", self.folder / "logs/disk.log")
        world = World(Places(self.folder / "lab", keys=KEYS, image=image), self.say)
        port = free_port()
        site = Site(kernel, tools, world.identity(port), world.ssh_key(), self.folder / "logs")
        (files.files / content).mkdir(parents=True, exist_ok=True)
        maker = Maker(files.files / content, self.keys, self.folder / "logs/bundles.log")
        with BenchDms(world, port, pair.old, pair.new, self.say) as dms:
            bench = Bench(site, pair.name, pair.old, pair.new, image, maker, files, dms, self.say)
            for name in engines:
                row = self._one(bench, name)
                if row is not None:
                    self._keep(row, pair, content, kernel)
                    found[name] = row
        return found

    def _one(self, bench: Bench, engine: str) -> Row | None:
        for attempt in range(1, ATTEMPTS + 1):
            self.say(f"{bench.pair}: {engine} on the board" + (f", attempt {attempt}" if attempt > 1 else ""))
            try:
                row = ENGINES[engine](bench)
            except (BenchError, BoardAssertionError, BuildError, LabError, MachineError, ZentriError) as error:
                if attempt == ATTEMPTS:
                    self._failed(bench.pair, engine, error)
                else:
                    self.say(f"that failed: {error}")
                continue
            self.say(f"{bench.pair}: {engine}: {json.dumps(row.__dict__)}")
            return row
        return None

    def _failed(self, pair: str, what: str, error: Exception) -> None:
        self.failures.append(f"{pair}: {what}: {error}")
        self.say(f"NOT MEASURED: {self.failures[-1]}")

    # --- results that are kept ----------------------------------------------------------------------------------------
    def _place(self, content: str, engine: str, kernel: Path) -> Path:
        code: tuple[str, ...] = ("scripts/bench/hosttools.py",)
        if engine == OUR_PATCH:
            code = (*code, "scripts/bench/applying.py", "zentrid/bundle", "dms_server/patches")
        if engine in ENGINES:
            code = MEASURING_CODE + (OUR_CODE if engine == OURS else ())
        inputs = {
            "recipe": RECIPE, "content": content, "engine": engine,
            "code": hash_files([TOP / path for path in code], TOP),
            "kernel": kernel.parent.name if engine in ENGINES else "",
            "debian": self.builder.debian().name if engine in ENGINES else "",
        }  # fmt: skip
        return self.folder / "rows" / f"{key_of(inputs)}.json"

    def _kept(self, pair: Pair, content: str, engine: str, kernel: Path) -> Row | None:
        try:
            (row,) = rows_from_json(self._place(content, engine, kernel).read_text())
        except (OSError, ValueError):
            return None
        return row if row.pair == pair.name else None

    def _keep(self, row: Row, pair: Pair, content: str, kernel: Path) -> None:
        place = self._place(content, row.engine, kernel)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(rows_to_json([row]))


def _digest(pair: Pair) -> str:
    """Return what a pair's results depend on: every byte of its payloads."""
    digest = hashlib.sha256()
    for release in (pair.old, pair.new):
        for file in PAYLOADS.values():
            with (release / file).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]
