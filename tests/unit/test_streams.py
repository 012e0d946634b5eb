"""The table of streams: numbers, limits, one user at a time, an end to what nobody uses."""

from __future__ import annotations

import asyncio

import pytest

from zentrid.core.streams import HANDLES, Poll, StreamError, next_handle
from zentrid.streams import StreamTable


class Memory:
    """A stream in memory."""

    kind = "FILE"
    info = "memory"

    def __init__(self, lost: str = "") -> None:
        self.state = Poll.DATA
        self.closed = 0
        self.lost = lost

    async def read(self, size_bytes: int) -> bytes:
        return b"x" * size_bytes

    async def write(self, data: bytes) -> str:
        return ""

    async def close(self) -> str:
        self.closed += 1
        return self.lost


def test_numbers_go_round() -> None:
    assert next_handle(-1, ()) == 0
    assert next_handle(0, {0}) == 1
    assert next_handle(3, {4, 5}) == 6
    assert next_handle(HANDLES - 1, {0}) == 1


async def test_a_number_does_not_soon_mean_something_else() -> None:
    table = StreamTable()
    assert [await table.add(Memory()), await table.add(Memory())] == [0, 1]
    await table.close(0)
    assert await table.add(Memory()) == 2
    with pytest.raises(StreamError, match="no stream 0"):
        table.look(0)
    await table.close_all()
    assert table.entries() == ()


async def test_there_are_only_so_many() -> None:
    table = StreamTable(most=2)
    first, late = Memory(), Memory()
    await table.add(first)
    await table.add(Memory())
    with pytest.raises(StreamError, match="2 streams are open"):
        await table.add(late)
    assert late.closed == 1
    first.state = Poll.ENDED  # its place can be had, and nothing else of it is left
    assert await table.add(Memory()) == 2
    assert first.closed == 1
    await table.close_all()


async def test_one_command_at_a_time() -> None:
    table = StreamTable()
    stream = Memory()
    handle = await table.add(stream)
    async with table.using(handle):
        with pytest.raises(StreamError, match="Another command"):
            async with table.using(handle):
                pass
        await table.close(handle)  # whoever waits for it hears of that
    assert stream.closed == 1
    with pytest.raises(StreamError, match="no stream"):
        async with table.using(handle):
            pass


async def test_what_is_lost_by_closing_is_told() -> None:
    table = StreamTable()
    handle = await table.add(Memory("3 of 5 bytes"))
    assert await table.close(handle) == "3 of 5 bytes"
    await table.add(Memory("again"))
    await table.add(Memory())
    assert await table.close_all() == ["again"]


async def test_idle_streams_are_closed_and_busy_ones_are_not() -> None:
    table = StreamTable(idle_s=0.05, sweep_s=0.01)
    idle, busy = Memory(), Memory()
    await table.add(idle)
    handle = await table.add(busy)
    async with table.using(handle):
        await asyncio.sleep(0.2)
        assert (idle.closed, busy.closed) == (1, 0)
        assert [entry.handle for entry in table.entries()] == [handle]
    async with asyncio.timeout(5):
        while table.entries():
            await asyncio.sleep(0.01)
    assert busy.closed == 1
    await asyncio.sleep(0.05)
    assert table._sweeper is not None
    assert table._sweeper.done()


class Slow(Memory):
    """One that takes a moment to close, and may fail."""

    error: StreamError | None = None

    async def close(self) -> str:
        await asyncio.sleep(0.02)
        if self.error is not None:
            raise self.error
        return await super().close()


async def test_closing_all_while_others_close_too() -> None:
    table = StreamTable()
    streams = [Slow("lost 0"), Slow("lost 1"), Slow("lost 2")]
    for stream in streams:
        await table.add(stream)
    streams[0].error = StreamError("stuck")
    closing = asyncio.create_task(table.close_all())
    await asyncio.sleep(0)
    assert await table.close(1) == "lost 1"
    assert await closing == ["stuck", "lost 2"]
    assert (table.entries(), [stream.closed for stream in streams]) == ((), [0, 1, 1])
