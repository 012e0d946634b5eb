"""Settings in flash: one JSON file with its checksum inside, and the generation before it.

Saving: write a temporary file, flush it, make the current file the previous one, rename, flush the directory. Cut
anywhere, loading finds what was saved last or what was saved before that. Loading never fails: it says what it had to
fall back to.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from zentrid.core.variables import Value, Values, VariableTable
from zentrid.errors import ZentriError

MAX_FILE_BYTES: Final = 256 * 1024
FORMAT: Final = 1
_log = logging.getLogger(__name__)


class SettingsSaveError(ZentriError):
    """The settings could not be written; what was saved before is still there."""

    reason = "settings_not_saved"


class BadSettingsFileError(ValueError):
    """A settings file that is damaged: what is wrong with it."""


@dataclass(frozen=True)
class LoadReport:
    """What loading found."""

    source: Literal["current", "previous", "defaults"]
    """Which file the values come from; `defaults` with no problems means that nothing was ever saved."""
    problems: tuple[str, ...] = ()
    """One sentence for each thing that was wrong."""


class Files(Protocol):
    """The file operations that saving and loading are made of, so that tests can cut between any two.

    All may raise OSError.
    """

    def read(self, path: Path, limit_bytes: int) -> bytes:
        """Return at most `limit_bytes` of a file."""

    def write(self, path: Path, data: bytes) -> None:
        """Create or replace a file readable by its owner only; not durable yet."""

    def flush(self, path: Path) -> None:
        """Make a file's content durable."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file over another one; not durable yet."""

    def flush_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""


class OsFiles:
    """The operating system's files."""

    def read(self, path: Path, limit_bytes: int) -> bytes:
        """Return at most `limit_bytes` of a file."""
        with path.open("rb") as file:
            return file.read(limit_bytes)

    def write(self, path: Path, data: bytes) -> None:
        """Create or replace a file, mode 0600; makes its folder if that is missing."""
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            self.flush_folder(path.parent.parent)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)

    def flush(self, path: Path) -> None:
        """Flush the file to the disk."""
        self._fsync(path, os.O_RDONLY)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing the target."""
        source.replace(target)

    def flush_folder(self, path: Path) -> None:
        """Flush the folder to the disk."""
        self._fsync(path, os.O_RDONLY | os.O_DIRECTORY)

    def _fsync(self, path: Path, flags: int) -> None:
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def encode(values: Mapping[str, Value]) -> bytes:
    """Return the content of a settings file; raises SettingsSaveError if it would be too large."""
    body = {"format": FORMAT, "values": dict(values)}
    data = json.dumps({**body, "sha256": _checksum(body)}, sort_keys=True, indent=1).encode("ascii") + b"\n"
    if len(data) > MAX_FILE_BYTES:
        raise SettingsSaveError(
            f"The settings take {len(data)} bytes, {MAX_FILE_BYTES} are allowed; shorten some values."
        )
    return data


def decode(data: bytes) -> dict[str, Value]:
    """Return the values in a settings file; raises BadSettingsFileError and nothing else."""
    if len(data) > MAX_FILE_BYTES:
        raise BadSettingsFileError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise BadSettingsFileError("is no JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadSettingsFileError("has an unknown format")
    values = content.get("values")
    body = {"format": FORMAT, "values": values}
    try:
        matches = content.get("sha256") == _checksum(body)
    except (ValueError, RecursionError):
        matches = False
    if not matches:
        raise BadSettingsFileError("has a wrong checksum")
    if not isinstance(values, dict):
        raise BadSettingsFileError("holds no values")
    return {name: value for name, value in values.items() if isinstance(value, str | int | bool)}


def _checksum(body: Mapping[str, object]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


class SettingsStore:
    """The values in RAM and the two files under `folder`."""

    def __init__(self, folder: Path, table: VariableTable, files: Files | None = None) -> None:
        self.values = Values(table)
        self.path = folder / "settings.json"
        self.previous_path = folder / "settings.previous.json"
        self._temporary_path = folder / "settings.new.json"
        self._files: Files = files or OsFiles()
        self._lock = asyncio.Lock()

    def load(self) -> LoadReport:
        """Load the saved variables; blocking, for the start of the supervisor. Never raises."""
        found, report = self._read()
        return LoadReport(report.source, (*report.problems, *self.values.take_saved(found)))

    def save_now(self) -> None:
        """Save; blocking. Raises SettingsSaveError, and then what was saved before is still there."""
        self._write(encode(self.values.to_saved()))

    async def save(self) -> None:
        """Save without holding up the event loop."""
        async with self._lock:
            data = encode(self.values.to_saved())
            # a cancelled command must not leave two writers behind: the write is waited for in any case
            await _uninterrupted(asyncio.create_task(asyncio.to_thread(self._write, data)))

    async def save_only(self, name: str) -> None:
        """Save one variable as it is now; what else was set and not saved stays unsaved. Raises SettingsSaveError."""
        async with self._lock:
            found, _ = await asyncio.to_thread(self._read)
            found.pop(name, None)
            now = self.values.to_saved()
            data = encode({**found, name: now[name]} if name in now else found)
            await _uninterrupted(asyncio.create_task(asyncio.to_thread(self._write, data)))

    async def reload(self) -> tuple[str, ...]:
        """Load again without holding up the event loop; returns a sentence for each thing that was wrong."""
        async with self._lock:
            found, report = await asyncio.to_thread(self._read)
            return (*report.problems, *self.values.take_saved(found))

    def _read(self) -> tuple[dict[str, Value], LoadReport]:
        problems: list[str] = []
        current = self._read_file(self.path, problems)
        if current is not None:
            return current, LoadReport("current", tuple(problems))
        previous = self._read_file(self.previous_path, problems)
        if previous is not None:
            if not problems:  # cut between the two renames of saving: nothing is lost but the newest change
                problems.append(f"{self.path.name} was being replaced when the power went; using the one before it.")
            return previous, LoadReport("previous", tuple(problems))
        if problems:
            problems.append("No settings file is usable; using the defaults.")
        return {}, LoadReport("defaults", tuple(problems))

    def _read_file(self, path: Path, problems: list[str]) -> dict[str, Value] | None:
        try:
            return decode(self._files.read(path, MAX_FILE_BYTES + 1))
        except FileNotFoundError:
            return None
        except OSError as error:
            problems.append(f"{path.name} cannot be read ({error.strerror or error}).")
        except BadSettingsFileError as error:
            problems.append(f"{path.name} {error}.")
        return None

    def _write(self, data: bytes) -> None:
        folder = self.path.parent
        try:
            self._files.write(self._temporary_path, data)
            self._files.flush(self._temporary_path)
            # a damaged current file must not take the place of a previous one that is sound
            if self._read_file(self.path, []) is not None:
                self._files.rename(self.path, self.previous_path)
            self._files.rename(self._temporary_path, self.path)
            self._files.flush_folder(folder)
        except OSError as error:
            raise SettingsSaveError(
                f"The settings could not be saved ({error.strerror or error}); free some space on the data partition "
                "or check it, then save again."
            ) from error
        _log.info("settings saved, %d bytes", len(data))


async def _uninterrupted(task: asyncio.Task[None]) -> None:
    """Wait for the task to end even if the waiting is cancelled; then pass the cancellation on."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
