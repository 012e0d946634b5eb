"""A board that runs a pair's old release, the same for every engine: disk, kernel, tools disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.bench.bundles import PAYLOADS
from scripts.board_driver.board import Board, BoardOptions
from scripts.board_driver.errors import MachineError
from scripts.board_driver.gpt import GPT_AREA_BYTES, parse_gpt
from scripts.board_driver.machine import DirectStart
from scripts.board_driver.ssh import NO_CONNECTION
from scripts.image import disk
from scripts.image.run import BuildError
from zentrid.bundle.tree import HashTree
from zentrid.core.fit import FitConfiguration, read_configuration

BOARD_NAME: Final = "bench"
HEALTHY_TIMEOUT_S: Final = 300.0
SHELL_TIMEOUT_S: Final = 120.0
INSTALL_TIMEOUT_S: Final = 420.0
TOOLS_DEVICE: Final = "/dev/vdb"
PACKAGES_FOLDER: Final = "/usr/lib/python3/dist-packages"
INIT: Final = (
    f"mount -t erofs -r {TOOLS_DEVICE} /mnt; mount --bind /mnt/bench/zentrid {PACKAGES_FOLDER}/zentrid; exec /sbin/init"
)
"""Before the old release's own init: the measured engine is this checkout's, whatever the old release carries."""

QUIET: Final = (
    "n=0; while pgrep -f '[z]entrid.update.worker' > /dev/null && [ $n -lt 60 ]; do n=$((n + 1)); sleep 1; done; "
    "sync; echo 3 > /proc/sys/vm/drop_caches; sleep 2"
)
"""The supervisor's regular contact with its server is over, and nothing is cached."""


class BenchError(RuntimeError):
    """A measurement could not be taken; the message says what happened and where the logs are."""


@dataclass(frozen=True)
class Measured:
    """What `onboard.py` found."""

    seconds: float
    peak_rss_bytes: int
    lines: list[tuple[float, str]]
    """What the command said, and when (seconds from its start)."""
    processes: list[tuple[str, int]]


def configuration_of(release: Path) -> FitConfiguration:
    """Return what a release's FIT says for slot A. Raises BuildError if it is none."""
    found = read_configuration((release / PAYLOADS["kernel"]).read_bytes(), "a")
    if found is None or found.version is None or found.verity is None:
        raise BuildError(f"{release / PAYLOADS['kernel']} is no kernel of a release; build the pair again")
    return found


def make_disk(old: Path, rom: Path, out: Path, log: Path) -> Path:
    """Make `out` an image folder with the old release in slots A and B and as the safe-mode system."""
    shutil.rmtree(out, ignore_errors=True)
    release = out / "release"
    release.mkdir(parents=True)
    shutil.copy(old / PAYLOADS["kernel"], release)
    with (old / PAYLOADS["rootfs"]).open("rb") as stream:
        tree = HashTree.from_reader(stream)
    shutil.copy(old / PAYLOADS["rootfs"], release / "rootfs.img")
    with (release / "rootfs.img").open("ab") as target:
        target.write(tree.levels_bytes())
    # No release is below this floor: a pair may lead back to a lower version.
    disk.build_disk(release, "0.0.1", out, log=log)
    with (out / "disk.img").open("r+b") as image:
        extents = parse_gpt(image.read(GPT_AREA_BYTES))
        for name, file in (("kernel_b", "kernel.itb"), ("rootfs_b", "rootfs.img")):
            image.seek(extents[name].offset_bytes)
            image.write((release / file).read_bytes())
    shutil.rmtree(release)
    (out / "rom.bin").symlink_to(rom)
    return out


@dataclass(frozen=True)
class Site:
    """What every board of the benchmark is made of."""

    kernel: Path
    tools: Path
    identity: Path
    ssh_key: Path
    logs: Path


class BenchBoard:
    """One start of the board, for one measurement."""

    def __init__(self, site: Site, image: Path, old: Path) -> None:
        arguments = f"{configuration_of(old).bootargs} zentri.slot=a zentri.warm=0 zentri.state_lost=0 zentri.reset=0"
        extra = (
            "-blockdev", f"driver=raw,node-name=tools,read-only=on,file.driver=file,file.filename={site.tools}",
            "-device", "virtio-blk-pci,drive=tools,romfile=",
        )  # fmt: skip
        start = DirectStart(site.kernel, f'{arguments} zentri.why=slot rauc.slot=A init=/bin/sh -- -c "{INIT}"')
        self._site = site
        self.board = Board(
            BOARD_NAME,
            BoardOptions(image=image, identity=site.identity, key=site.ssh_key, direct=start, extra=extra),
        )

    def start(self) -> None:
        """Switch it on with a fresh disk and wait until it is healthy, as every board is before it is updated."""
        self.board.up(fresh=True)
        self.board.wait_for_healthy(HEALTHY_TIMEOUT_S)

    def send(self, line: str, *, shown: str | None = None) -> str:
        """Run a line of the command language. Raises BenchError if it fails."""
        answer = self.board.send(line, SHELL_TIMEOUT_S)
        if not answer.ok:
            raise BenchError(f"the board refused `{shown or line}`: {answer.body} {' '.join(answer.log)}")
        return answer.body

    def shell(self, line: str, timeout_s: float = SHELL_TIMEOUT_S) -> str:
        """Run a shell line as root; return what it printed. Raises BenchError if it fails."""
        end = time.monotonic() + timeout_s
        while True:
            done = self.board.shell(line, timeout_s)
            if done.returncode != NO_CONNECTION or time.monotonic() > end:
                break
            time.sleep(1)
        if done.returncode:
            raise BenchError(
                f"`{line[:120]}` failed on the board with {done.returncode}: {(done.stderr + done.stdout)[-1500:]}"
            )
        return done.stdout

    def measure(self, pattern: str, command: str) -> Measured:
        """Run a command with `onboard.py`, from a cold page cache. Raises BenchError if it fails."""
        self.shell(QUIET)
        line = f"python3 -S -s /mnt/bench/onboard.py '{pattern}' {INSTALL_TIMEOUT_S:.0f} {command}"
        answer: dict[str, Any] = json.loads(self.shell(line, INSTALL_TIMEOUT_S + 60).splitlines()[-1])
        lines = [(float(at), str(text)) for at, text in answer["lines"]]
        if answer["code"]:
            said = "\n".join(text for _, text in lines[-15:])
            raise BenchError(f"`{command[:80]}` ended with {answer['code']} after {answer['seconds']} s:\n{said}")
        processes = [(str(words), int(mark)) for words, mark in answer["processes"]]
        return Measured(float(answer["seconds"]), int(answer["peak_rss_bytes"]), lines, processes)

    def check_target(self, new: Path) -> None:
        """Switch the power off; raise BenchError unless slot B holds the new release to the last byte."""
        self.board.power_cut()
        for name, file in PAYLOADS.items():
            wanted = (new / file).read_bytes()
            found = self.board.disk_read(f"{name}_b", 0, len(wanted))
            if hashlib.sha256(found).digest() != hashlib.sha256(wanted).digest():
                raise BenchError(f"{name}_b does not hold the new release after the installation")

    def keep_logs(self, name: str) -> Path:
        """Copy what the board printed to the benchmark's logs; return where."""
        self._site.logs.mkdir(parents=True, exist_ok=True)
        target = self._site.logs / f"{name}.serial.log"
        if self.board.run.serial_log.exists():
            shutil.copy(self.board.run.serial_log, target)
        return target


@contextmanager
def running(site: Site, image: Path, old: Path, name: str, say: Callable[[str], None]) -> Iterator[BenchBoard]:
    """Have a board inside the context; it is off afterwards, and after a failure its log is kept."""
    board = BenchBoard(site, image, old)
    try:
        board.start()
        yield board
    except (BenchError, MachineError):
        say(f"the board's console is kept in {board.keep_logs(name)}")
        raise
    finally:
        board.board.down()
