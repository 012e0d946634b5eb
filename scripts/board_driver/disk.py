"""A board's disk from its making to its use: overlay, identity, and the record of what it was made from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.board_driver import places
from scripts.board_driver.errors import MachineError
from scripts.board_driver.overlay import Overlay
from scripts.board_driver.state import DiskRecord

_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
MAX_IDENTITY_JSON_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class IdentityFolder:
    """What `scripts/provision device` made for one board."""

    path: Path
    mac: str
    dms_port: int

    @classmethod
    def load(cls, path: Path) -> IdentityFolder:
        """Read `identity.json` in `path`. MachineError if the folder is no identity."""
        try:
            with (path / "identity.json").open("rb") as stream:
                data: Any = json.loads(stream.read(MAX_IDENTITY_JSON_BYTES))
            mac, dms_port = str(data["mac"]), int(data["dms_port"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MachineError(f"{path} is no identity ({error}); `scripts/provision device` makes one") from error
        if not _MAC.fullmatch(mac) or not (path / "identity.img").is_file():
            raise MachineError(f"{path} is no whole identity; `scripts/provision device` makes one")
        return cls(path.resolve(), mac, dms_port)


class BoardDisk:
    """The disk of one board, in its state folder."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir
        self.overlay = Overlay(state_dir / "disk.qcow2")
        self._record_path = state_dir / "board.json"

    @property
    def exists(self) -> bool:
        """Whether the disk has been made."""
        return self.overlay.path.exists()

    def record(self) -> DiskRecord | None:
        """Return what the disk was made from. StateDamagedError if that is unreadable."""
        return DiskRecord.load(self._record_path)

    def is_made_from(self, image: Path, identity: Path) -> bool:
        """Tell whether there is a usable disk, made from just this image for just this identity."""
        try:
            record = self.record()
            if record is None or not self.exists:
                return False
            record.check_backing()
            wanted = IdentityFolder.load(identity)
        except MachineError:
            return False
        same_identity = (record.identity, record.mac, record.dms_port) == (
            str(wanted.path),
            wanted.mac,
            wanted.dms_port,
        )
        return not self.is_outdated(image) and same_identity

    def prepare(self, image: Path | None, identity: Path | None, *, fresh: bool) -> DiskRecord:
        """Make the disk if there is none or `fresh` is set; return its record.

        `image`: see places.image_folder; an existing board keeps the one it was made from, and needs no other.
        `identity`: its folder; None: the one that the disk before had, if any. MachineError if what the board was made
        from has changed or is gone, or if another identity is asked of it.
        """
        if not self.exists or fresh:
            if identity is None and self.exists:
                identity = self._known_identity()
            return self._make(places.image_folder(image), identity)
        record = self.record()
        if record is None:
            raise MachineError(f"{self._record_path} is missing; `scripts/board up --fresh` makes a new disk")
        record.check_backing()
        if identity is not None and str(identity.resolve()) != record.identity:
            raise MachineError(
                "this board has another identity already (it is written once); `up --fresh` makes a new board"
            )
        return record

    def is_outdated(self, image: Path | None) -> bool:
        """Return whether a new board would be made from something else than this one; False if that is not known."""
        try:
            folder, record = places.image_folder(image), self.record()
        except MachineError:
            return False
        files = [str((folder / name).resolve()) for name in ("rom.bin", "disk.img")]
        return record is not None and files != [record.rom, record.backing]

    def _known_identity(self) -> Path | None:
        """Return the identity of the disk that is about to be replaced, if it can be known."""
        try:
            record = self.record()
        except MachineError:
            return None
        return Path(record.identity) if record is not None and record.identity is not None else None

    def _make(self, image: Path, identity_path: Path | None) -> DiskRecord:
        identity = IdentityFolder.load(identity_path) if identity_path is not None else None
        backing = (image / "disk.img").resolve()
        found = backing.stat()
        record = DiskRecord(
            rom=str((image / "rom.bin").resolve()),
            backing=str(backing),
            backing_size_bytes=found.st_size,
            backing_mtime_ns=found.st_mtime_ns,
            identity=str(identity.path) if identity else None,
            mac=identity.mac if identity else None,
            dms_port=identity.dms_port if identity else None,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        # Made under another name: a disk that was cut off in the making must not look like one.
        new = Overlay.create(self.folder / "disk.new", backing)
        if identity is not None:
            new.write_partition("identity", 0, (identity.path / "identity.img").read_bytes())
        self.overlay.path.unlink(missing_ok=True)
        record.save(self._record_path)
        new.path.replace(self.overlay.path)
        self.overlay = Overlay(self.overlay.path)
        return record
