"""Files as streams: their blocking work is done in threads, and is never left half done by a command that is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from zentrid.adapters.filestore import FileStore, NewFile, ReadFile
from zentrid.core.files import FileError, FileInfo, FileMeta
from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.streams import Poll

T = TypeVar("T")


async def in_thread(work: Callable[[], T], undo: Callable[[T], object] = lambda _done: None) -> T:
    """Do blocking work in a thread and wait for its end, also if this is cancelled: then undo it, and pass that on."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await asyncio.shield(asyncio.to_thread(undo, task.result()))
        raise


class FileReading:
    """A file that is read."""

    kind = "FILE"

    def __init__(self, name: str, file: ReadFile) -> None:
        self.info = name
        self._file = file
        self._ended = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def state(self) -> Poll:
        """Ended when a read has met the end."""
        return Poll.ENDED if self._ended or self._file.position >= self._file.size_bytes else Poll.DATA

    async def read(self, size_bytes: int) -> bytes:
        """Return the next bytes; fewer at the end, where the file is closed. A read that is given up takes none."""
        if self._ended:
            return b""
        # Who gives up gets nothing, so the next one who reads gets these bytes.
        data = await in_thread(partial(self._file.read, size_bytes), undo=lambda data: self._file.unread(len(data)))
        if len(data) < size_bytes:
            self._ended = True
            self._closing = asyncio.create_task(in_thread(self._file.close))  # waiting for it could be given up, too
        return data

    async def write(self, data: bytes) -> str:
        """Refuse."""
        raise CommandError(
            Code.FAILED, f"'{self.info}' is open for reading; 'file_create -o' opens a file for writing."
        )

    async def close(self) -> str:
        """Close the file."""
        self._ended = True
        await in_thread(self._file.close)
        return ""


class FileWriting:
    """A new file. With its last byte it gets its name; closed before, it is gone."""

    kind = "NEW"

    def __init__(self, file: NewFile) -> None:
        self.info = file.name
        self._file = file
        self._ended = self._kept = False

    @property
    def state(self) -> Poll:
        """Ended when the file is whole or given up."""
        return Poll.ENDED if self._ended else Poll.NOTHING

    async def read(self, size_bytes: int) -> bytes:
        """Refuse."""
        raise CommandError(Code.FAILED, f"'{self.info}' is open for writing; 'file_open' opens a file for reading.")

    async def write(self, data: bytes) -> str:
        """Append bytes; finish the file with the last ones, if its size is known."""
        if self._ended:
            raise FileError(f"'{self.info}' is closed; create it anew.")
        await in_thread(partial(self._file.write, data))
        self._check_not_given_up()
        if not self._file.complete:
            return ""
        await self.finish()
        return "File created"

    async def finish(self) -> None:
        """Give the file its name; one that cannot be kept is gone. Nothing to do a second time."""
        if self._kept:
            return
        self._check_not_given_up()
        self._ended = True
        try:
            await in_thread(self._file.finish)
            self._kept = True
        finally:
            await in_thread(self._file.abandon)

    def _check_not_given_up(self) -> None:
        """Closing needs no leave of a command that writes: what is thrown away must not be called created."""
        if self._ended:
            raise FileError(f"'{self.info}' was closed by another command, so it is not kept; create it anew.")

    async def close(self) -> str:
        """Give up a file that is not whole."""
        if self._ended:
            return ""
        self._ended = True
        await in_thread(self._file.abandon)
        return (
            f"'{self.info}' had {self._file.written_bytes} of {self._file.size_bytes} bytes when it was closed, so it is not "
            "kept."
        )


class DeviceFiles:
    """The files of the device, for the event loop. Every call may raise FileError."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    async def list(self) -> list[FileInfo]:
        """Return all files, by name."""
        return await in_thread(self._store.list)

    async def stat(self, name: str) -> FileInfo:
        """Return what is known of a file."""
        return await in_thread(partial(self._store.stat, name))

    async def delete(self, name: str, *, force: bool = False) -> None:
        """Remove a file; an essential one only with `force`."""
        await in_thread(partial(self._store.delete, name, force=force))

    async def open(self, name: str) -> FileReading:
        """Open a file for reading."""
        return FileReading(name, await in_thread(partial(self._store.open, name), undo=ReadFile.close))

    async def create(self, name: str, size_bytes: int | None, meta: FileMeta) -> FileWriting:
        """Begin a file; see `FileStore.create`."""
        work = partial(self._store.create, name, size_bytes, meta)
        return FileWriting(await in_thread(work, undo=NewFile.abandon))
