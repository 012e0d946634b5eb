"""What the driver remembers between its runs: `state.json` of a running board, `board.json` of a board's disk."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from scripts.board_driver.errors import MachineError
from scripts.board_driver.process import ProcessId

FORMAT: Final = 1
MAX_FILE_BYTES: Final = 64 * 1024


class StateDamagedError(MachineError):
    """A state file cannot be understood."""


@dataclass(frozen=True)
class _Record:
    """A flat JSON object with a format number and exactly the fields of the class."""

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Return the record in `path`; None if there is no such file. StateDamagedError if it makes no sense."""
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            if len(raw) > MAX_FILE_BYTES:
                raise ValueError("too long")
            data = json.loads(raw)
            if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
                raise ValueError("another format")
            return cls._checked(data)
        except (ValueError, TypeError, RecursionError) as error:
            raise StateDamagedError(f"{path} is damaged ({error}); {cls._advice()}") from error

    @classmethod
    def _checked(cls, data: dict[str, Any]) -> Self:
        wanted = {field.name: str(field.type) for field in fields(cls)}
        if set(data) != set(wanted):
            raise ValueError("wrong fields: " + ", ".join(sorted(set(data) ^ set(wanted))))
        kinds = {"str": str, "int": int, "bool": bool, "float": float}
        for name, kind in wanted.items():
            allowed = tuple(kinds[word] for word in kind.split(" | ") if word != "None")
            value = data[name]
            if value is None and "None" in kind:
                continue
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise ValueError(f"{name} is not {kind}")
        return cls(**data)

    @classmethod
    def _advice(cls) -> str:
        return "remove it"

    def save(self, path: Path) -> None:
        """Write this record to `path`, whole or not at all."""
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")
        new.replace(path)


@dataclass(frozen=True)
class RunState(_Record):
    """A board that is up: its power may be on or cut."""

    name: str
    pid: int | None
    """QEMU's process; None: the power is cut."""
    start_ticks: int | None
    """See ProcessId: tells that process from a later one with the same number."""
    image: str
    state_dir: str
    ssh_port: int
    http_port: int
    log_offset: int
    """Where in serial.log the last power-on or reset begins, in bytes."""
    since_unix_s: float
    """When the last power-on or reset was."""
    bound: bool
    """QEMU dies with the process that started it."""

    @property
    def process(self) -> ProcessId | None:
        """QEMU, if it still runs."""
        if self.pid is None or self.start_ticks is None:
            return None
        process = ProcessId(self.pid, self.start_ticks)
        return process if process.alive else None

    @classmethod
    def _advice(cls) -> str:
        return "`scripts/board down` ends the board and removes the file"


@dataclass(frozen=True)
class DiskRecord(_Record):
    """What a board was made from. Lies next to `disk.qcow2`."""

    rom: str
    """The ROM belongs to the board as the disk does: it is not exchanged when a newer image is built."""
    backing: str
    backing_size_bytes: int
    backing_mtime_ns: int
    identity: str | None
    """The identity folder that was written into the disk, so that a fresh disk gets the same."""
    mac: str | None
    dms_port: int | None

    @classmethod
    def _advice(cls) -> str:
        return "`scripts/board up --fresh` makes a new disk"

    def check_backing(self) -> None:
        """MachineError if the image has changed since the disk was made: the disk holds only what differs from it."""
        try:
            found = os.stat(self.backing)  # noqa: PTH116 - one call, both fields of the same moment
        except FileNotFoundError:
            found = None
        if not Path(self.rom).is_file():
            raise MachineError(
                f"{self.rom}, the ROM of this board, is gone; `scripts/board up --fresh` makes a new board"
            )
        if found is None or (found.st_size, found.st_mtime_ns) != (self.backing_size_bytes, self.backing_mtime_ns):
            raise MachineError(
                f"{self.backing} is not the image that this board's disk was made from any more; "
                "`scripts/board up --fresh` makes a new disk (everything on the board is lost, its identity is kept)"
            )
