"""Neighbours that hold connections to keep the owner out: real sockets from many addresses, the real process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.commandline import console
from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess, door_process
from tests.unit.http.conftest import basic
from zentrid.core.places import MAX_OF_ONE, MAX_PLACES
from zentrid.http.config import Config

OWNER = "127.0.0.200"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def door(device: Device, tmp_path: Path) -> AsyncIterator[DoorProcess]:
    async with console(device, tmp_path / "console.sock") as path:
        # So long a request may take to come: nobody leaves by itself while a test runs.
        config = Config(console=str(path), username="u", password="p", request_s=100.0)
        async with door_process(config) as one:
            yield one


class Visitors:
    """Opens connections from addresses of the loopback, and closes them in the end."""

    def __init__(self, port: int, stack: AsyncExitStack) -> None:
        self._port = port
        self._stack = stack
        self._held: list[asyncio.StreamWriter] = []

    async def open(self, address: str, sends: bytes = b"GET / HT") -> Connection:
        """Open one and send something: as a start, half a request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(address, 0))
        self._stack.callback(writer.transport.abort)
        self._held.append(writer)  # one that nobody has is closed
        writer.write(sends)
        return reader, writer

    async def ask(self, connection: Connection) -> bytes:
        """Ask for the version as the owner; return the answer's first line, empty if the connection is closed."""
        reader, writer = connection
        password = basic("u", "p")["Authorization"]
        writer.write(f"GET /command/version HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {password}\r\n\r\n".encode())
        async with asyncio.timeout(20):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(size)
            except (ConnectionError, asyncio.IncompleteReadError):
                return b""
        return head.partition(b"\r\n")[0]


@pytest.fixture
async def visitors(door: DoorProcess) -> AsyncIterator[Visitors]:
    async with AsyncExitStack() as stack:
        yield Visitors(door.port, stack)


async def closed(connection: Connection) -> bool:
    """Tell whether the door has closed a connection; it answers nothing to half a request."""
    async with asyncio.timeout(20):
        try:
            return await connection[0].read(1) == b""
        except ConnectionError:
            return True


def neighbours(count: int) -> list[str]:
    return [f"127.0.1.{number}" for number in range(1, count + 1)]


async def test_two_neighbours_with_all_places_do_not_keep_the_owner_out(visitors: Visitors) -> None:
    held = [await visitors.open(address) for address in neighbours(2) for _ in range(MAX_OF_ONE)]
    owner = await visitors.open(OWNER, b"")
    assert await visitors.ask(owner) == b"HTTP/1.1 200 OK"
    assert await closed(held[0])
    # Another one of the same neighbour takes the place of one of its own, not of the owner's.
    await visitors.open(neighbours(2)[1])
    assert await closed(held[MAX_OF_ONE])
    assert await visitors.ask(owner) == b"HTTP/1.1 200 OK"


async def test_a_neighbour_with_many_addresses_does_not_keep_the_owner_out(visitors: Visitors) -> None:
    for address in neighbours(2 * MAX_PLACES):
        await visitors.open(address)
    owner = await visitors.open(OWNER, b"")
    assert await visitors.ask(owner) == b"HTTP/1.1 200 OK"
    for address in neighbours(3 * MAX_PLACES):
        await visitors.open(address)
    newest = await visitors.open("127.0.2.1")
    assert await visitors.ask(owner) == b"HTTP/1.1 200 OK", "who has proven to be the owner stays"
    assert await visitors.ask(await visitors.open(OWNER, b"")) == b"HTTP/1.1 200 OK"
    newest[1].write(b"TP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert (await newest[0].readline()).startswith(b"HTTP/1.1 401 ")


async def test_who_is_refused_often_does_not_stay_by_that(visitors: Visitors) -> None:
    guessers = [await visitors.open(address, b"") for address in neighbours(MAX_PLACES - 1)]
    owner = await visitors.open(OWNER, b"")
    for reader, writer in guessers:
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    await visitors.open("127.0.2.1")
    assert await visitors.ask(owner) == b"HTTP/1.1 200 OK"


async def test_an_owner_behind_the_neighbours_address_gets_in(visitors: Visitors) -> None:
    held = [await visitors.open(OWNER) for _ in range(MAX_OF_ONE)]
    owner = await visitors.open(OWNER, b"")
    assert await visitors.ask(owner) == b"HTTP/1.1 200 OK"
    assert await closed(held[0])
    for _ in range(2 * MAX_OF_ONE):
        await visitors.open(OWNER)
    assert await visitors.ask(owner) == b"HTTP/1.1 200 OK"


async def test_a_terminal_of_the_owner_stays(door: DoorProcess) -> None:
    async with AsyncExitStack() as stack:
        visitors = Visitors(door.terminal_port, stack)
        reader, writer = await visitors.open(OWNER, b"u\r\np\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b"> ")
            for address in neighbours(2 * MAX_PLACES):
                await visitors.open(address, b"")
            writer.write(b"get system.boot.slot\r\n")
            await reader.readuntil(b"\r\na\r\n")
