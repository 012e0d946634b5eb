"""The HTTP door's sessions of the command line: how many there are, and when a place is free again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from zentrid.core.httpapi import CommandRequest
from zentrid.http import link as link_module
from zentrid.http.link import MAX_COMMANDS, BusyError, LinkError, Links


class SlowDaemon:
    """A command line whose commands take until `end` is set, whoever has hung up."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.sessions = 0
        self.most = 0
        self.hung_up = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be one session."""
        self.sessions += 1
        self.most = max(self.most, self.sessions)
        data = b""
        while b"\r\n" not in data:
            data += await reader.read(1000)
        if b"slow" in data:
            hangs_up = asyncio.create_task(reader.read(1))
            hangs_up.add_done_callback(lambda _task: self._note())
            await self.end.wait()
            await hangs_up
        with suppress(OSError):
            writer.write(b"R000004\r\nok\r\n")
            await reader.read(1)
        self.sessions -= 1
        writer.close()

    def _note(self) -> None:
        self.hung_up += 1


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[SlowDaemon]:
    daemon = SlowDaemon()
    server = await asyncio.start_unix_server(daemon.serve, tmp_path / "console.sock")
    yield daemon
    daemon.end.set()
    server.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_command_that_was_left_alone_keeps_its_place_until_it_has_ended(
    daemon: SlowDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "TURN_S", 0.1)
    links = Links(str(tmp_path / "console.sock"))
    for number in range(1, MAX_COMMANDS + 1):
        asked = asyncio.create_task(links.run(CommandRequest(b"slow")))
        await until(lambda: daemon.sessions == number)  # noqa: B023
        asked.cancel()
        await asyncio.wait({asked})
        await until(lambda: daemon.hung_up == number)  # noqa: B023
    with pytest.raises(BusyError, match="commands are running"):
        await links.run(CommandRequest(b"version"))
    assert daemon.most == MAX_COMMANDS
    daemon.end.set()
    await until(lambda: daemon.sessions == 0)
    for _ in range(2 * MAX_COMMANDS):
        assert (await links.run(CommandRequest(b"version"))).body == b"ok\r\n"


async def test_what_is_not_there_or_breaks_off_takes_no_place(tmp_path: Path) -> None:
    path = tmp_path / "console.sock"
    links = Links(str(path))
    for _ in range(2 * MAX_COMMANDS):
        with pytest.raises(LinkError, match="not running"):
            await links.run(CommandRequest(b"version"))

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(break_off, path)
    for _ in range(2 * MAX_COMMANDS):
        with pytest.raises(LinkError, match="broke off"):
            await links.run(CommandRequest(b"version"))
    server.close()
