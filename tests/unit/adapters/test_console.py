"""The doors for real: a pseudo terminal as the serial port, a local socket, and the login shell as its own process."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import stat
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from blockbuster import blockbuster_ctx

from tests.support.fakes import Device
from zentrid.adapters.console import MAX_OUTPUT_BYTES, SerialDoor, bind_socket
from zentrid.adapters.sessions import HELLO_S, KEPT_FOR_PEOPLE, MAX_GREETINGS, MAX_SESSIONS, CommandServer
from zentrid.commands.catalog import build_registry
from zentrid.core.framing import Frame, FrameReader
from zentrid.ports import UpdateProgress

T = TypeVar("T")
VERSION = b"DEMO-VIRT_SENSOR-1.4.0, 2026-11-01T10:00:00Z, Zentri-1.4.0, Board:virt\r\n"
INSTALLED = UpdateProgress("rebooting", 100, "1.5.0 installed", done=True, reboot=True)


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[None]:
    with blockbuster_ctx("zentrid"):
        yield


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing at first is greeted soon."""
    monkeypatch.setattr("zentrid.adapters.sessions.HELLO_S", 0.25)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


@asynccontextmanager
async def serving(
    device: Device, tmp_path: Path, serial: Path | None = None, **limits: float
) -> AsyncIterator[CommandServer]:
    """Run a server on a socket under `tmp_path`."""
    server = CommandServer(build_registry(), device.ctx, **limits)  # type: ignore[arg-type]
    await server.start(serial, tmp_path / "run" / "console.sock")
    try:
        yield server
    finally:
        await server.stop()
        assert not server.listening


class Client:
    """A connection to the local socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, tmp_path: Path, hello: bytes = b"") -> Client:
        client = cls(*await asyncio.open_unix_connection(str(tmp_path / "run" / "console.sock")))
        client.writer.write(hello)
        return client

    async def until(self, part: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(part), 5)

    async def frames(self, count: int) -> list[Frame]:
        reader, frames = FrameReader(), list[Frame]()
        while len(frames) < count:
            data = await asyncio.wait_for(self.reader.read(4096), 5)
            assert data, frames
            frames += reader.feed(data)
        return frames

    async def ended(self) -> bytes:
        rest = await asyncio.wait_for(self.reader.read(-1), 5)
        self.writer.close()
        return rest


async def eventually(get: Callable[[], T]) -> T:
    """Wait until `get` returns something true, and return it."""
    async with asyncio.timeout(5):
        while not (value := get()):
            await asyncio.sleep(0.005)
    return value


# --- serial -----------------------------------------------------------------------------------------------------------
class SerialLine:
    """The other end of a serial line."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.path = Path(os.ttyname(self.slave))
        os.set_blocking(self.master, False)

    async def until(self, part: bytes, timeout_s: float = 5.0) -> bytes:
        got = b""
        async with asyncio.timeout(timeout_s):
            while part not in got:
                try:
                    got += os.read(self.master, 4096)
                except BlockingIOError:
                    await asyncio.sleep(0.005)
        return got

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def close(self) -> None:
        for fd in (self.master, self.slave):
            os.close(fd)


@pytest.fixture
def line() -> Iterator[SerialLine]:
    line = SerialLine()
    yield line
    line.close()


async def test_serial_console(device: Device, tmp_path: Path, line: SerialLine) -> None:
    before = termios.tcgetattr(line.slave)
    async with serving(device, tmp_path, line.path) as server:
        assert server.listening
        await line.until(b"> ")
        line.type(b"version\r")
        assert await line.until(b"Board:virt\r\n> ") == b"version\r\n" + VERSION + b"> "
    assert termios.tcgetattr(line.slave) == before


async def test_serial_port_that_is_missing_is_tried_again(device: Device, tmp_path: Path, line: SerialLine) -> None:
    link = tmp_path / "ttyTEST0"
    async with serving(device, tmp_path, link) as server:
        assert not server.listening
        link.symlink_to(line.path)
        await line.until(b"> ")
        assert server.listening


async def test_serial_port_that_is_no_terminal(device: Device, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    async with serving(device, tmp_path, plain) as server:
        assert not server.listening
        client = await Client.connect(tmp_path, b"\0human\n")
        await client.until(b"> ")
        client.writer.close()


async def test_nobody_reads_the_serial_port(line: SerialLine) -> None:
    door = await SerialDoor.open(line.path)
    for _ in range(3 * MAX_OUTPUT_BYTES // 1000):
        door.write(b"x" * 1000)
    assert len(door._out) <= MAX_OUTPUT_BYTES
    await line.until(b"xxx")
    door.close()
    door.close()
    assert await door.read() == b""


async def test_hang_up_ends_the_serial_session() -> None:
    line = SerialLine()
    door = await SerialDoor.open(line.path)
    reading = asyncio.create_task(door.read())
    await asyncio.sleep(0.01)
    line.close()
    assert await asyncio.wait_for(reading, 5) == b""
    door.write(b"into nothing")
    door.close()


# --- local socket -----------------------------------------------------------------------------------------------------
async def test_socket_without_hello_is_human(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path) as server:
        assert server.listening
        client = await Client.connect(tmp_path)
        assert await client.until(b"> ") == VERSION + b"> "
        client.writer.write(b"version\r")
        assert await client.until(b"\r\n> ") == b"version\r\n" + VERSION + b"> "
        client.writer.close()


async def test_socket_in_machine_mode(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path):
        client = await Client.connect(tmp_path, b"\0machine\nget ota.state\r\nsave\r\n")
        assert await client.frames(2) == [Frame("R", 0, b"idle\r\n"), Frame("R", 0, b"Success\r\n")]
        client.writer.close()
        other = await Client.connect(tmp_path, b"\0human\n")
        await other.until(b"> ")  # what one session is, is not saved unless it was set
        other.writer.close()


async def test_hello_may_come_in_pieces_or_be_nonsense(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path):
        client = await Client.connect(tmp_path, b"\0mach")
        await asyncio.sleep(0.02)
        client.writer.write(b"ine\nget ota.state\r\n")
        assert await client.frames(1) == [Frame("R", 0, b"idle\r\n")]
        client.writer.close()
        other = await Client.connect(tmp_path, b"\0" + b"x" * 100 + b"\n")
        await other.until(b"> ")
        other.writer.close()


async def test_too_many_sessions_are_told(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path, max_sessions=2):
        clients = [await Client.connect(tmp_path, b"\0human\n") for _ in range(2)]
        for client in clients:
            await client.until(b"> ")
        third = await Client.connect(tmp_path, b"\0machine\n")
        log, answer = await third.frames(2)
        assert b"2 sessions" in log.body
        assert answer.code == 1
        assert await third.ended() == b""
        clients[0].writer.write(b"\x04")
        await clients[0].ended()
        fourth = await Client.connect(tmp_path, b"\0human\n")
        await fourth.until(b"> ")
        for client in (clients[1], fourth):
            client.writer.close()


@pytest.mark.parametrize("hello", [b"\0machine\n", b"\0once\n"])
async def test_programs_leave_places_for_people(device: Device, tmp_path: Path, hello: bytes) -> None:
    async with serving(device, tmp_path) as server:
        programs = [await Client.connect(tmp_path, b"\0machine\n") for _ in range(MAX_SESSIONS - KEPT_FOR_PEOPLE)]
        await eventually(lambda: len(server._sessions) == len(programs))
        refused = await Client.connect(tmp_path, hello)
        log, answer = await refused.frames(2)
        assert b"Programs have 6 sessions" in log.body
        assert answer.code == 1
        people = [await Client.connect(tmp_path, b"\0human\n") for _ in range(KEPT_FOR_PEOPLE)]
        for person in people:
            await person.until(b"> ")
        programs[0].writer.close()
        await eventually(lambda: len(server._sessions) == MAX_SESSIONS - 1)
        programs[0] = await Client.connect(tmp_path, b"\0machine\nget ota.state\n")
        assert await programs[0].frames(1) == [Frame("R", 0, b"idle\r\n")]
        for client in (*programs, refused, *people):
            client.writer.close()


async def test_a_program_is_believed_on_a_device_that_is_busy(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for a person, it could not read its first answer."""
    monkeypatch.setattr("zentrid.adapters.sessions.HELLO_S", HELLO_S)
    async with serving(device, tmp_path):
        program = await Client.connect(tmp_path)
        await asyncio.sleep(1.0)
        program.writer.write(b"\0machine\nget ota.state\n")
        assert await program.frames(1) == [Frame("R", 0, b"idle\r\n")]
        program.writer.close()


async def test_a_flood_of_connections_is_cut_off(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zentrid.adapters.sessions.HELLO_S", 10.0)
    async with serving(device, tmp_path, max_sessions=2) as server:
        silent = [await Client.connect(tmp_path) for _ in range(2 + MAX_GREETINGS)]
        await eventually(lambda: len(server._tasks) == len(silent))
        refused = await Client.connect(tmp_path)
        assert await refused.ended() == b""
        for client in silent:
            client.writer.close()


async def test_end_of_input_still_gets_its_answers(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path):
        client = await Client.connect(tmp_path, b"\0machine\n" + b"get ota.state\n" * 50)
        client.writer.write_eof()
        assert await client.ended() == b"R000006\r\nidle\r\n" * 50


async def test_a_connection_that_does_not_read_is_closed(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path) as server:
        client = await Client.connect(tmp_path, b"\0machine\n")
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        connection = next(iter(await eventually(lambda: server._sessions)))
        for _ in range(3 * MAX_OUTPUT_BYTES // 100):
            connection.announce("x" * 100)
        await eventually(lambda: not server._sessions)
        client.writer.transport.abort()


async def test_announcements_keep_the_line_being_typed(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path) as server:
        human = await Client.connect(tmp_path, b"\0human\n")
        machine = await Client.connect(tmp_path, b"\0machine\nversion\n")
        await human.until(b"> ")
        await machine.frames(1)
        human.writer.write(b"vers")
        await human.until(b"vers")
        server.announce("The update is confirmed.")
        assert await human.until(b"vers") == b"\r\x1b[KThe update is confirmed.\r\n> vers"
        assert (await machine.frames(1))[0].body == b"The update is confirmed.\r\n"
        human.writer.close()
        machine.writer.close()


def test_socket_is_for_owner_and_group_and_replaces_a_left_over_one(tmp_path: Path) -> None:
    path = tmp_path / "run" / "console.sock"
    first = bind_socket(path)
    second = bind_socket(path, os.getgid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
    first.close()
    second.close()


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "console.sock"
    path.write_text("important")
    with pytest.raises(FileExistsError, match="no socket"):
        bind_socket(path)
    assert path.read_text() == "important"
