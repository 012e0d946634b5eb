"""Blocking work of files in threads: what was given up meanwhile is undone, and nothing stays open."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from zentrid.adapters.filestore import FileStore
from zentrid.adapters.filestreams import DeviceFiles, in_thread
from zentrid.core.files import FileMeta


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
