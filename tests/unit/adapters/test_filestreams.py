"""Blocking work of files in threads: what was given up meanwhile is undone, and nothing stays open."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from zentrid.adapters.filestore import FileStore
from zentrid.adapters.filestreams import DeviceFiles, in_thread
from zentrid.core.files import FileError, FileMeta
from zentrid.core.streams import Poll


class Held:
    """Work in a thread that goes on when the test says so."""

    def __init__(self) -> None:
        self.began, self.goes_on = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.began.set()
        assert self.goes_on.wait(5)

    async def cancel_in_the_middle(self, task: asyncio.Task[object]) -> None:
        await asyncio.to_thread(self.began.wait, 5)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()  # what is under way is waited for
        self.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)


async def test_a_file_that_nobody_waits_for_any_more_is_not_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, held = FileStore(tmp_path / "files"), Held()
    real = store._begin

    def begin(name: str, size_bytes: int | None, meta: FileMeta) -> object:
        held.wait()
        return real(name, size_bytes, meta)

    monkeypatch.setattr(store, "_begin", begin)
    await held.cancel_in_the_middle(asyncio.create_task(DeviceFiles(store).create("a", 5, FileMeta())))
    assert store._on_their_way == set()
    assert list((tmp_path / "files.new").iterdir()) == []


async def test_a_file_that_nobody_reads_any_more_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, held = FileStore(tmp_path / "files"), Held()
    files = DeviceFiles(store)
    await (await files.create("a", 0, FileMeta())).finish()
    real, opened = store.open, []

    def slow_open(name: str) -> object:
        held.wait()
        opened.append(real(name))
        return opened[0]

    monkeypatch.setattr(store, "open", slow_open)
    await held.cancel_in_the_middle(asyncio.create_task(files.open("a")))
    assert opened[0]._fd < 0


async def test_what_has_failed_needs_no_undoing() -> None:
    held, undone = Held(), list[object]()

    def work() -> None:
        held.wait()
        raise OSError("full")

    await held.cancel_in_the_middle(asyncio.create_task(in_thread(work, undone.append)))
    assert undone == []


async def test_a_read_that_is_given_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, held = DeviceFiles(FileStore(tmp_path / "files")), Held()
    new = await files.create("a", 6, FileMeta())
    assert await new.write(b"abcdef") == "File created"
    stream = await files.open("a")
    assert await stream.read(2) == b"ab"
    real = stream._file.read

    def slow_read(size_bytes: int) -> bytes:
        held.wait()
        return real(size_bytes)

    with monkeypatch.context() as patch:
        patch.setattr(stream._file, "read", slow_read)
        await held.cancel_in_the_middle(asyncio.create_task(stream.read(3)))
    assert await stream.read(9) == b"cdef"
    assert (await stream.read(1), stream.state) == (b"", Poll.ENDED)
    await stream.close()
    assert stream._file._fd < 0


async def test_what_is_closed_during_its_last_write_is_not_called_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, held = DeviceFiles(FileStore(tmp_path / "files")), Held()
    new = await files.create("a", 3, FileMeta())
    real = new._file.write

    def slow_write(data: bytes) -> None:
        real(data)
        held.wait()

    monkeypatch.setattr(new._file, "write", slow_write)
    writing = asyncio.create_task(new.write(b"abc"))
    await asyncio.to_thread(held.began.wait, 5)
    assert "not kept" in await new.close()
    held.goes_on.set()
    with pytest.raises(FileError, match="closed by another command, so it is not kept"):
        await writing
    assert await files.list() == []


async def test_finishing_what_another_has_closed(tmp_path: Path) -> None:
    files = DeviceFiles(FileStore(tmp_path / "files"))
    new = await files.create("a", None, FileMeta())
    await new.write(b"abc")
    await new.close()
    with pytest.raises(FileError, match="not kept"):
        await new.finish()
    assert await files.list() == []
    kept = await files.create("b", None, FileMeta())
    await kept.finish()
    await kept.finish()
    assert [info.name for info in await files.list()] == ["b"]
