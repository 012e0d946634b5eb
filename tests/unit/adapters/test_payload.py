"""Bytes after a line, on sessions: never taken for commands or for Ctrl-C, and never waited for without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from tests.support.console import MemoryDoor
from tests.support.fakes import Device
from zentrid.adapters import payload, sessions
from zentrid.adapters.sessions import MAX_TYPED_AHEAD_BYTES, CommandServer, Session
from zentrid.commands.catalog import build_registry
from zentrid.commands.execute import Executor
from zentrid.core.framing import Frame, FrameReader

EVERY_BYTE = bytes(range(256))


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[None]:
    with blockbuster_ctx("zentrid"):
        yield


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    real = payload.LinePayload

    class Impatient(real):  # type: ignore[valid-type,misc]
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, silence_s=0.3, drop_silence_s=0.1)

    monkeypatch.setattr(sessions, "LinePayload", Impatient)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


@asynccontextmanager
async def session(device: Device, *, machine: bool = True, once: bool = False) -> AsyncIterator[MemoryDoor]:
    door = MemoryDoor()
    task = asyncio.create_task(Session(door, Executor(build_registry(), device.ctx), machine=machine, once=once).run())
    try:
        yield door
    finally:
        door.type(b"")
        await asyncio.wait_for(task, 5)


async def answer(door: MemoryDoor) -> tuple[list[str], Frame]:
    """Return the log lines and the answer that come next."""
    reader, log = FrameReader(), list[str]()
    while True:
        head = await door.until(b"\r\n")
        size = int(head[2:7])
        while len(door.output) < size:
            await asyncio.sleep(0.001)
        [frame] = reader.feed(head + bytes(door.output[:size]))
        del door.output[:size]
        if frame.kind != "L":
            return log, frame
        log.append(frame.body.decode())


async def answer_to(door: MemoryDoor, line: bytes) -> Frame:
    door.type(line)
    return (await answer(door))[1]


async def read_file(device: Device, name: str) -> bytes:
    return await asyncio.to_thread((device.store.top / name).read_bytes)


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("together", [True, False])
async def test_every_byte_arrives_as_it_is(device: Device, end: bytes, together: bool) -> None:
    async with session(device) as door:
        line = b"file_create a 256" + end
        if together:
            door.type(line + EVERY_BYTE + b"version\r\n")
        else:
            for byte in line + EVERY_BYTE + b"version\r\n":
                door.type(bytes([byte]))
        assert await door.until(b"created\r\n") == b"R000014\r\nFile created\r\n"
        assert (await answer(door))[1].body.startswith(b"DEMO")
    assert await read_file(device, "a") == EVERY_BYTE


async def test_a_payload_that_begins_with_a_line_feed(device: Device) -> None:
    async with session(device) as door:
        for end in (b"\r\n", b"\n"):
            door.type(b"file_create a 3" + end + b"\n\r\n")
            await door.until(b"created\r\n")
            assert await read_file(device, "a") == b"\n\r\n"


async def test_more_than_is_ever_typed_ahead(device: Device) -> None:
    data = EVERY_BYTE * 1024
    assert len(data) > 10 * MAX_TYPED_AHEAD_BYTES
    async with session(device) as door:
        door.type(b"file_create a %d\r\n" % len(data))
        for at in range(0, len(data), 1000):
            door.type(data[at : at + 1000])
        await door.until(b"created\r\n")
    assert await read_file(device, "a") == data


async def test_what_a_stream_gives_is_bytes_in_a_block(device: Device) -> None:
    async with session(device) as door:
        door.type(b"file_create a 256\r\n" + EVERY_BYTE + b"file_open a\r\nread 0 256\r\nread 0 1\r\n")
        assert (await answer(door))[1].body == b"File created\r\n"
        assert (await answer(door))[1].body == b"0\r\n"
        assert (await answer(door))[1].body == EVERY_BYTE + b"\r\n"
        assert (await answer(door))[1] == Frame("R", 0, b"")


@pytest.mark.parametrize(
    "line",
    [
        b"file_create ../a 24",
        b"file_create a 24 1 xyz",
        b"write 5 24",
        b"http_post -l 24 ftp://x text/plain",
    ],
)
async def test_bytes_of_a_line_that_failed_are_no_commands(device: Device, line: bytes) -> None:
    async with session(device) as door:
        door.type(line + b"\r\nset system.name captured\r\nset system.name right\r\n")
        _, first = await answer(door)
        assert first.code != 0
        assert (await answer(door))[1].body == b"Set OK\r\n"
        assert device.settings.values["system.name"] == "right"
        assert not door.output


@pytest.mark.parametrize(
    "line",
    [
        b"file_create my notes.txt 24", b"fcr a 24 1 2 3 4", b"file_create -x a 24", b"file_create a", b'file_create "a 24',
        b"file_create a\xff 24", b"file_create a 24 " + b"x" * 3000, b"write 0 -24", b"http_post -l",
    ],
)  # fmt: skip
@pytest.mark.parametrize("machine", [True, False])
async def test_bytes_of_a_line_that_does_not_say_how_many_are_no_commands(
    device: Device, line: bytes, machine: bool
) -> None:
    async with session(device, machine=machine) as door:
        door.type(line + b"\r\nset system.name captured\r\nreboot\r\n")
        await asyncio.sleep(0.05)
        door.type(b"set system.name captured\r\n")  # still coming
        await asyncio.sleep(0.3)
        assert device.settings.values["system.name"] == ""
        door.type(b"set system.name right\r\n")
        await door.until(b"Set OK\r\n")
        assert device.settings.values["system.name"] == "right"
    assert device.power.reboots == []


async def test_bytes_that_are_too_many_are_thrown_away_as_long_as_they_come(device: Device) -> None:
    async with session(device) as door:
        door.type(b"write 0 200000\r\n")
        for _ in range(200):
            door.type(b"reboot\r\n" * 125)
        _, first = await answer(door)
        assert first.code == 9
        door.type(b"version\r\n")
        assert (await answer(door))[1].code == 0
    assert device.power.reboots == []


async def test_bytes_that_do_not_come_are_waited_for_so_long(device: Device) -> None:
    async with session(device) as door:
        door.type(b"file_create a 5\r\nabc")
        log, first = await answer(door)
        assert first.code == 1
        assert "2 bytes are missing: none came for 0.3 s" in log[0]
        door.type(b"ls\r\n")
        assert (await answer(door))[1].body == b"No files\r\n"


async def test_a_connection_that_ends_leaves_nothing(device: Device) -> None:
    async with session(device) as door:
        door.type(b"file_create a 5\r\nabc")
        door.type(b"")
        log, first = await answer(door)
        assert first.code == 1
        assert "the connection ended" in log[0]
    assert await device.ctx.files.list() == []


async def test_ctrl_c_is_a_byte_before_the_end_and_none_after_it(device: Device) -> None:
    class Slow:
        kind, info = "FILE", "slow"
        state = 0
        wrote = b""

        async def write(self, data: bytes) -> str:
            self.wrote = data
            await asyncio.sleep(60)
            return ""

        async def close(self) -> str:
            return ""

    slow = Slow()
    await device.ctx.streams.add(slow)  # type: ignore[arg-type]
    async with session(device) as door:
        door.type(b"write 0 3\r\n\x03")
        await asyncio.sleep(0.05)
        door.type(b"\x03\x03")
        async with asyncio.timeout(5):
            while not slow.wrote:
                await asyncio.sleep(0.001)
        assert slow.wrote == b"\x03\x03\x03"
        door.type(b"\x03")
        log, first = await answer(door)
        assert (first.code, log) == (1, ["Cancelled.\r\n"])
    await device.ctx.streams.close_all()


async def test_bytes_of_lines_that_come_ahead_are_no_ctrl_c(device: Device) -> None:
    async with session(device) as door:
        await answer_to(door, b"file_create -o a 3000\r\n")
        door.type(b"".join(b"write 0 3\r\n\x03\x03\x03poll 0\r\n" for _ in range(1000)))
        for number in range(1000):
            _, written = await answer(door)
            _, polled = await answer(door)
            assert (written.code, polled.body) == (0, b"2\r\n" if number == 999 else b"0\r\n"), number
    assert await read_file(device, "a") == b"\x03" * 3000


async def test_ctrl_c_that_was_typed_with_the_last_byte_counts(device: Device) -> None:
    device.dms.delay_s = 60
    async with session(device) as door:
        door.type(b"file_create a 1\r\n\x03dms status\r\n\x03")
        assert (await answer(door))[1].body == b"File created\r\n"
        assert (await answer(door))[0] == ["Cancelled.\r\n"]


async def test_a_person_sees_what_is_typed_and_no_terminal_obeys_it(device: Device) -> None:
    async with session(device, machine=False) as door:
        await door.until(b"> ")
        door.type(b"file_create a 8\r")
        await door.until(b"file_create a 8\r\n")
        door.type(b"ab\rc\x1b[2J")
        assert await door.until(b"> ") == b"ab\r\nc.[2J\r\nFile created\r\n> "
        door.type(b"file_open a\r")
        await door.until(b"> ")
        door.type(b"read 0 8\r")
        assert await door.until(b"> ") == b"read 0 8\r\nab\r\nc?[2J\r\n> "
    assert await read_file(device, "a") == b"ab\rc\x1b[2J"


async def test_a_session_for_one_line_carries_out_no_other(device: Device) -> None:
    async with session(device, once=True) as door:
        door.type(b"\r\nfile_create a 3\r\nabcset system.name captured\r\n")
        assert (await answer(door))[1].body == b"File created\r\n"
        async with asyncio.timeout(5):
            while not door.closed:
                await asyncio.sleep(0.001)
    assert device.settings.values["system.name"] == ""


async def test_what_has_an_end_ends_by_itself_when_nothing_more_is_typed(device: Device) -> None:
    def append() -> None:
        device.log.parent.mkdir(exist_ok=True)
        device.log.write_text("a line\n")

    await asyncio.to_thread(append)
    for line, code, body in ((b"log -n 5", 0, b"a line\r\n"), (b"log -f", 1, b"Command failed\r\n")):
        async with session(device) as door:
            door.type(line + b"\r\n")
            door.type(b"")
            _, found = await answer(door)
            assert (found.code, found.body) == (code, body), line


@pytest.mark.parametrize(("word", "answers"), [(b"machine", 2), (b"once", 1)])
async def test_the_word_that_a_connection_begins_with(
    device: Device, tmp_path: Path, word: bytes, answers: int
) -> None:
    server = CommandServer(build_registry(), device.ctx)
    path = tmp_path / "console.sock"
    await server.start(None, path)
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"\0" + word + b"\nget sy s s\r\nget sy s s\r\n")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"R000003\r\n0\r\n" * answers
        writer.close()
    finally:
        await server.stop()
