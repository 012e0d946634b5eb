"""The engines that install on the board: each takes a pair to a row."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.bench.boards import BenchBoard, BenchError, Measured, Site, running
from scripts.bench.bundles import PAYLOADS, Maker
from scripts.bench.image import device_of
from scripts.bench.labdms import BenchDms
from scripts.bench.rows import OURS, Row
from scripts.bench.serve import FileServer

OUR_PROCESSES: Final = r"-m zentrid( |$|\.update)"
RAUC_PROCESSES: Final = r"(^|/)rauc"
SWUPDATE_PROCESSES: Final = r"(^|/)swupdate"
_SWUPDATE_DONE: Final = "SWUPDATE successful"
_FILLING: Final = re.compile(r"\bdownloading\b")


@dataclass(frozen=True)
class Bench:
    """Everything that a measurement of one pair needs."""

    site: Site
    pair: str
    old: Path
    new: Path
    image: Path
    """The disk with the old release."""
    maker: Maker
    files: FileServer
    dms: BenchDms
    say: Callable[[str], None]

    def board(self, engine: str) -> AbstractContextManager[BenchBoard]:
        """Return a context with a fresh board."""
        return running(self.site, self.image, self.old, f"{self.pair}-{engine}", self.say)


def zentri(bench: Bench) -> Row:
    """Install by this project's engine: `ota` from the DMS."""
    with bench.board(OURS) as board:
        bench.dms.own(board)
        board.send("set ota.reboot manual")
        bench.dms.wait_for_patches()
        bench.dms.proxy.reset()
        measured = board.measure(OUR_PROCESSES, "zentri-shell -c ota")
        wire = bench.dms.proxy.to_board_bytes
        board.check_target(bench.new)
    return _row(bench, OURS, measured, wire, fill_s=filling_s(measured))


def filling_s(measured: Measured) -> float | None:
    """Return the time from the first word about blocks to the end, in seconds."""
    for at_s, text in measured.lines:
        if _FILLING.search(text):
            return round(measured.seconds - at_s, 3)
    return None


def rauc(bench: Bench) -> Row:
    """Install a verity bundle by RAUC, streaming, without adaptive mode."""
    return _rauc(bench, "rauc", adaptive=False)


def rauc_adaptive(bench: Bench) -> Row:
    """Install a verity bundle by RAUC, streaming, adaptive, with the indexes of both slots at hand."""
    return _rauc(bench, "rauc-adaptive", adaptive=True)


def _rauc(bench: Bench, engine: str, *, adaptive: bool) -> Row:
    bundle = bench.maker.rauc(bench.new, adaptive=adaptive)
    slots = " ".join(
        f"{name}.{number} {device_of(f'{name}_{slot}')} {(bench.old / file).stat().st_size}"
        for number, slot in enumerate("ab")
        for name, file in PAYLOADS.items()
    )
    with bench.board(engine) as board:
        board.shell(f"python3 -S -s /mnt/bench/raucstate.py /data/rauc {slots}")
        board.shell("sh /mnt/bench/prepare.sh rauc")
        bench.files.proxy.reset()
        command = f"chroot /mnt /usr/bin/rauc install {bench.files.url(_below(bench, bundle))}"
        try:
            measured = board.measure(RAUC_PROCESSES, command)
        except BenchError as error:
            raise BenchError(f"{error}\n{board.shell('tail -n 30 /mnt/run/rauc-service.log')}") from error
        wire = bench.files.proxy.to_board_bytes
        board.check_target(bench.new)
    return _row(bench, engine, measured, wire)


def swupdate(bench: Bench) -> Row:
    """Install a whole archive by SWUpdate, written while it arrives."""
    return _swupdate(bench, "swupdate", bench.maker.swupdate(bench.new))


def swupdate_delta(bench: Bench) -> Row:
    """Install by SWUpdate's delta handler (zchunk), with the running slot as its source."""
    archive = bench.maker.swupdate_delta(
        bench.new, bench.old, lambda name: bench.files.url(_below(bench, bench.maker.folder / name))
    )
    return _swupdate(bench, "swupdate-delta", archive)


def _swupdate(bench: Bench, engine: str, archive: Path) -> Row:
    with bench.board(engine) as board:
        board.shell("sh /mnt/bench/prepare.sh")
        bench.files.proxy.reset()
        url = bench.files.url(_below(bench, archive))
        program = (
            "chroot /mnt /usr/bin/swupdate -f /etc/swupdate.cfg -H bench:1.0 -k /etc/rauc/signer.pem -M -m "
            f'-d "-u {url} -r 1"'
        )
        # SWUpdate leaves what it has written in the page cache. The others' success means that it is on the disk.
        command = f"sh -c '{program} && sync'"
        measured = board.measure(SWUPDATE_PROCESSES, command)
        if not any(_SWUPDATE_DONE in text for _, text in measured.lines):
            raise BenchError(
                "swupdate does not say that it succeeded:\n" + "\n".join(text for _, text in measured.lines[-15:])
            )
        wire = bench.files.proxy.to_board_bytes
        board.check_target(bench.new)
    return _row(bench, engine, measured, wire)


def _below(bench: Bench, path: Path) -> str:
    return str(path.relative_to(bench.files.files))


def _row(bench: Bench, engine: str, measured: Measured, wire_bytes: int, fill_s: float | None = None) -> Row:
    if not measured.processes:
        raise BenchError(f"no process of {engine} was seen, so its memory is not known")
    return Row(bench.pair, engine, wire_bytes, round(measured.seconds, 2), measured.peak_rss_bytes, fill_s)


ENGINES: Final = {
    OURS: zentri, "rauc": rauc, "rauc-adaptive": rauc_adaptive, "swupdate": swupdate, "swupdate-delta": swupdate_delta,
}  # fmt: skip
"""By the name in the results."""
