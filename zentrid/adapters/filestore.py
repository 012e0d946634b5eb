"""The device's files on the data partition: read in place, written beside and renamed when they are whole.

    files/<name>       a whole file, readable by everybody; what is kept about it is an extended attribute of its own
    files.new/<n>      a file on its way: nobody lists, reads or serves it, and the next start removes it

Since bytes and attribute get their name in one rename, a power cut leaves the old file or the new one, each with what belongs
to it. Blocking: for threads other than the event loop's.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from zentrid.core.crc16 import Crc16
from zentrid.core.files import (
    MAX_DEPTH,
    MAX_FILE_BYTES,
    FileError,
    FileInfo,
    FileMeta,
    Room,
    check_change,
    check_growth,
    check_room,
    parse_meta,
)
from zentrid.core.names import MIB
from zentrid.update.durable import Hook, flush_folder, no_hook

log = logging.getLogger(__name__)

ATTRIBUTE: Final = "user.zentri"
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_ATTRIBUTES: Final = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM)
"""A file system that keeps none, such as the one in RAM when data cannot be mounted."""


class ReadFile:
    """One file, open for reading: what it was when it was opened, whatever becomes of its name."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self.size_bytes = os.fstat(fd).st_size
        self.position = 0

    def read(self, most_bytes: int) -> bytes:
        """Return the next bytes; fewer at the file's end only. Raises FileError."""
        with self._lock:
            if self._fd < 0:
                raise FileError("The file was closed.")
            try:
                data = os.pread(self._fd, most_bytes, self.position)
            except OSError as error:
                raise FileError(f"The file cannot be read ({error.strerror}); see the log.") from error
            self.position += len(data)
            return data

    def unread(self, size_bytes: int) -> None:
        """Go back by the last bytes read: nobody got them."""
        with self._lock:
            self.position -= size_bytes

    def close(self) -> None:
        """Let go of it; may be called twice."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


class NewFile:
    """A file on its way: `write` until all is there, then `finish`; or `abandon`. Every call may raise FileError.

    One that has failed cannot be gone on with.
    """

    def __init__(
        self, store: FileStore, name: str, size_bytes: int | None, meta: FileMeta, path: Path, fd: int
    ) -> None:
        self.name = name
        self.size_bytes = size_bytes
        """None: it ends when the sender says so."""
        self.written_bytes = 0
        self._store = store
        self._meta = meta
        self._path = path
        self._fd = fd
        self._granted_bytes = size_bytes or 0
        self._crc = Crc16()
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return self.written_bytes == self.size_bytes

    @property
    def reserved_bytes(self) -> int:
        """How much room it takes."""
        return self._granted_bytes

    def write(self, data: bytes) -> None:
        """Append bytes, all or none."""
        with self._lock:
            self._check_open()
            if self.size_bytes is None:
                self._grow(self.written_bytes + len(data))
            elif self.written_bytes + len(data) > self.size_bytes:
                left = self.size_bytes - self.written_bytes
                raise FileError(f"{self.name} takes {left} bytes more, not {len(data)}; nothing of them was written.")
            try:
                self._store.hook(f"write {self.name}")
                view = memoryview(data)
                at = self.written_bytes
                while view:
                    count = os.pwrite(self._fd, view, at)
                    view, at = view[count:], at + count
            except OSError as error:
                raise FileError(
                    f"{self.name} cannot be written ({error.strerror}); free some space and start anew."
                ) from error
            self._crc.update(data)
            self.written_bytes += len(data)

    def _grow(self, size_bytes: int) -> None:
        """Ask for more room, a good piece at a time: to tell how much there is takes a while."""
        if size_bytes > self._granted_bytes:
            wanted_bytes = max(size_bytes, min(self._granted_bytes + MIB, MAX_FILE_BYTES))
            self._store.check_growth(self._granted_bytes, wanted_bytes - self._granted_bytes)
            self._granted_bytes = wanted_bytes

    def finish(self) -> FileInfo:
        """Give the whole file its name, durably."""
        with self._lock:
            self._check_open()
            if self.size_bytes is not None and not self.complete:
                raise FileError(
                    f"{self.name} has {self.written_bytes} of {self.size_bytes} bytes; send the rest first."
                )
            if self._meta.crc is not None and self._meta.crc != self._crc.value:
                raise FileError(
                    f"{self.name} has CRC {self._crc.value:04x}, not {self._meta.crc:04x}: it was damaged on its way, and is "
                    "not kept; send it again."
                )
            meta = FileMeta(self._meta.version, self._meta.type, self._meta.flags, self._crc.value)
            try:
                self._seal(meta)
                self._store.name_it(self._path, self.name)
            except OSError as error:
                raise FileError(f"{self.name} cannot be kept ({error.strerror}); check the data partition.") from error
            self._close()
            return FileInfo(self.name, self.written_bytes, meta)

    def _seal(self, meta: FileMeta) -> None:
        hook = self._store.hook
        hook(f"attribute {self.name}")
        try:
            os.setxattr(self._fd, ATTRIBUTE, meta.to_bytes())
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
        os.fchmod(self._fd, 0o644)
        hook(f"flush {self.name}")
        os.fsync(self._fd)

    def abandon(self) -> None:
        """Remove what there is of it; nothing to do after `finish`. Never raises."""
        with self._lock:
            if self._fd < 0:
                return
            self._close()
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _check_open(self) -> None:
        if self._fd < 0:
            raise FileError(f"{self.name} was closed before it was whole, so it is not kept.")

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)
        self._store.forget(self)


class FileStore:
    """All files of the device, below `top`. `hook` is called before each durable step. Names were checked before."""

    def __init__(self, top: Path, hook: Hook = no_hook) -> None:
        self.top = top
        self.hook = hook
        self._incoming = top.with_name(f"{top.name}.new")
        self._lock = threading.Lock()
        self._on_their_way: set[NewFile] = set()
        self._number = 0

    def clear(self) -> None:
        """Remove what was on its way when the power went, and folders that wait for a first file; a problem is logged."""
        try:
            if self._incoming.exists():
                shutil.rmtree(self._incoming)
            if self.top.is_dir():
                self._remove_empty(self.top, 0)
        except OSError as error:
            log.error("what was left of files on their way cannot be removed (%s)", error.strerror)

    def _remove_empty(self, folder: Path, depth: int) -> None:
        """Remove the folders below that hold nothing: no command lists one, so nobody could make room for a file."""
        if depth >= MAX_DEPTH:
            return
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                self._remove_empty(path, depth + 1)
                if not any(path.iterdir()):
                    path.rmdir()

    # --- what is there --------------------------------------------------------------------------------------------
    def list(self) -> list[FileInfo]:
        """Return all files, by name. Raises FileError."""
        try:
            with self._lock:
                found = [self._info(name, path) for name, path in self._walk(self.top, "")]
        except OSError as error:
            raise FileError(f"The files cannot be listed ({error.strerror}); check the data partition.") from error
        return sorted(found, key=lambda info: info.name)

    def stat(self, name: str) -> FileInfo:
        """Return what is known of a file. Raises FileError."""
        fd = self._open(name)
        try:
            return FileInfo(name, os.fstat(fd).st_size, _read_meta(fd))
        finally:
            os.close(fd)

    def open(self, name: str) -> ReadFile:
        """Open a file for reading. Raises FileError."""
        return ReadFile(self._open(name))

    def _open(self, name: str) -> int:
        try:
            fd = os.open(self.top / name, _READ)
        except OSError as error:
            raise _missing(name, error) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileError(f"'{name}' is a folder; 'ls' lists the files in it.")
        return fd

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        if not folder.is_dir() or prefix.count("/") >= MAX_DEPTH:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(Path(entry.path), f"{prefix}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    yield prefix + entry.name, Path(entry.path)

    def _info(self, name: str, path: Path) -> FileInfo:
        return FileInfo(name, path.stat().st_size, _read_meta(path))

    # --- changing -------------------------------------------------------------------------------------------------
    def create(self, name: str, size_bytes: int | None, meta: FileMeta) -> NewFile:
        """Begin a file, and take the room for it if its size is known. One of that name stays until the new one is whole.

        `meta.crc`: what the bytes must have; None: anything. Raises FileError.
        """
        with self._lock:
            self._check_place(name)
            try:
                check_room(self._room(), size_bytes or 0)
                new = self._begin(name, size_bytes, meta)
            except OSError as error:
                raise FileError(f"'{name}' cannot be created ({error.strerror}); check the data partition.") from error
            self._on_their_way.add(new)
            return new

    def _begin(self, name: str, size_bytes: int | None, meta: FileMeta) -> NewFile:
        self._make_folders(self._incoming)
        self._number += 1
        path = self._incoming / str(self._number)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if size_bytes:
                os.posix_fallocate(fd, 0, size_bytes)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        return NewFile(self, name, size_bytes, meta, path, fd)

    def _check_place(self, name: str) -> None:
        """Refuse a name where a folder is, or below a file."""
        if (self.top / name).is_dir():
            raise FileError(f"'{name}' is a folder; choose another name.")
        parts = name.split("/")
        for count in range(1, len(parts)):
            if (self.top / "/".join(parts[:count])).is_file():
                raise FileError(
                    f"'{'/'.join(parts[:count])}' is a file, so nothing can be below it; choose another name."
                )

    def _room(self) -> Room:
        files = [path.stat().st_size for _, path in self._walk(self.top, "")]
        new = [file.reserved_bytes for file in self._on_their_way]
        place = next(path for path in (self.top, *self.top.parents) if path.exists())
        found = os.statvfs(place)
        return Room(len(files) + len(new), sum(files) + sum(new), found.f_bavail * found.f_frsize, found.f_favail)

    def check_growth(self, size_bytes: int, more_bytes: int) -> None:
        """Refuse to let a file on its way grow. Raises FileError."""
        with self._lock:
            try:
                room = self._room()
            except OSError as error:
                raise FileError(f"The files cannot be counted ({error.strerror}); check the data partition.") from error
        check_growth(room, size_bytes, more_bytes)

    def check_change(self, gone: Collection[str], new: Mapping[str, int]) -> None:
        """Refuse a change of many files that could not be gone through with; see `core.files`. Raises FileError."""
        with self._lock:
            try:
                present = {name: path.stat().st_size for name, path in self._walk(self.top, "")}
                room = self._room()
            except OSError as error:
                raise FileError(f"The files cannot be counted ({error.strerror}); check the data partition.") from error
        check_change(room, present, gone, new)

    def forget(self, file: NewFile) -> None:
        """A file is not on its way any more."""
        with self._lock:
            self._on_their_way.discard(file)

    def name_it(self, path: Path, name: str) -> None:
        """Give a flushed file its name, and make that durable. Raises OSError, FileError."""
        with self._lock:
            self._check_place(name)
            target = self.top / name
            self._make_folders(target.parent)
            self.hook(f"rename {name}")
            path.replace(target)
            self.hook(f"flush folder of {name}")
            flush_folder(target.parent)

    def delete(self, name: str, *, force: bool = False) -> None:
        """Remove a file, and folders that are empty then; an essential one only with `force`. Raises FileError."""
        with self._lock:
            if self.stat(name).meta.essential and not force:
                raise FileError(f"'{name}' is marked as essential; 'file_delete -f' deletes it all the same.")
            path = self.top / name
            try:
                self.hook(f"delete {name}")
                path.unlink()
                folder = path.parent
                while folder != self.top and not any(folder.iterdir()):
                    folder.rmdir()
                    folder = folder.parent
                flush_folder(folder)
            except OSError as error:
                raise FileError(f"'{name}' cannot be deleted ({error.strerror}); check the data partition.") from error

    def _make_folders(self, folder: Path) -> None:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir()
            path.chmod(0o755)  # whatever the umask is: other processes serve what is in it
            flush_folder(path.parent)


def _read_meta(file: Path | int) -> FileMeta:
    try:
        return parse_meta(os.getxattr(file, ATTRIBUTE))
    except OSError:
        return FileMeta()


def _missing(name: str, error: OSError) -> FileError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileError(f"There is no file '{name}'; 'ls' lists the files.")
    return FileError(f"'{name}' cannot be opened ({error.strerror}); see the log.")
