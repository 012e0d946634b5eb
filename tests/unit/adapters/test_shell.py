"""The login shell as its own process against a real server: one line, a person at a terminal, and no server at all."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from tests.support.fakes import Device
from zentrid import shell
from zentrid.adapters.sessions import CommandServer
from zentrid.commands.catalog import build_registry
from zentrid.ports import UpdateProgress

ROOT = Path(__file__).parents[3]
VERSION = b"DEMO-VIRT_SENSOR-1.4.0, 2026-11-01T10:00:00Z, Zentri-1.4.0, Board:virt\n"


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[None]:
    with blockbuster_ctx("zentrid"):
        yield


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


@pytest.fixture
async def path(device: Device, tmp_path: Path) -> AsyncIterator[Path]:
    server = CommandServer(build_registry(), device.ctx)
    path = tmp_path / "console.sock"
    await server.start(None, path)
    yield path
    await server.stop()


async def start(path: Path, *arguments: str, fd: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
    """Start the shell the way a device does: isolated, without site packages."""
    environment = {"ZENTRI_CONSOLE_SOCKET": str(path), "PATH": os.environ["PATH"]}
    error = asyncio.subprocess.PIPE if fd == asyncio.subprocess.PIPE else fd
    return await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-m", "zentrid.shell", *arguments,
        stdin=fd, stdout=fd, stderr=error, cwd=ROOT, env=environment, start_new_session=True,
    )  # fmt: skip


async def run(path: Path, *arguments: str, typed: bytes = b"") -> tuple[int | None, bytes, bytes]:
    """Run the shell to its end; return exit status, output and error output."""
    process = await start(path, *arguments)
    output, error = await asyncio.wait_for(process.communicate(typed), 20)
    return process.returncode, output, error


@pytest.mark.parametrize(
    ("line", "status", "output", "error"),
    [
        ("version", 0, VERSION, b""),
        ("get system.safemode.status", 0, b"0\n", b""),
        ('set system.name "two words"', 0, b"Set OK\n", b""),
        ("get system.cmd.format", 0, b"machine\n", b""),
        ("set system.boot.deadline 5", 9, b"Out of bounds\n", b"5 is out of bounds: 20 to 3600 s.\n"),
        ("dms claim x", 4, b"Too few arguments\n", b"Usage: dms claim"),
        ("nonsense", 3, b"Unknown command\n", b"help commands"),
        ('get "', 2, b"Parse error\n", b"quote"),
        ("   ", 0, b"", b""),
        ("version\nreboot", 2, b"", b"one line"),
        ("x" * 3000, 8, b"", b"2048 bytes"),
    ],
)
async def test_one_line(path: Path, line: str, status: int, output: bytes, error: bytes) -> None:
    got = await run(path, "-c", line)
    assert got[:2] == (status, output)
    assert error in got[2]
    assert bool(got[2]) == bool(error)


async def test_unclaimed_device(path: Path, device: Device) -> None:
    device.updates.script = [UpdateProgress("failed", 0, "device not claimed", done=True, ok=False, result=7)]
    assert await run(path, "-c", "ota") == (
        1, b"Command failed\n", b'{"result":"fail","message":"device not claimed"}\n',
    )  # fmt: skip


async def test_bytes_for_a_command_come_from_standard_input(path: Path, device: Device) -> None:
    data = bytes(range(256)) * 100
    done = await run(path, "-c", f"file_create a {len(data)}", typed=data)
    assert done == (0, b"File created\n", b"")
    assert await asyncio.to_thread((device.store.top / "a").read_bytes) == data
    assert (await run(path, "-c", "file_open a"))[1] == b"0\n"
    assert await run(path, "-c", "read 0 90000") == (0, data, b"")


async def test_standard_input_that_is_too_short_or_too_long(path: Path, device: Device) -> None:
    status, output, error = await run(path, "-c", "file_create a 10", typed=b"123")
    assert (status, output) == (1, b"Command failed\n")
    assert b"7 bytes are missing: the connection ended" in error
    more = b"12345" + b"reboot\r\n" * 100_000
    assert (await run(path, "-c", "fcr a 5", typed=more))[:2] == (0, b"File created\n")
    assert (await run(path, "-c", "fcr /a 5", typed=b"12345" + more))[:2] == (7, b"Bad argument\n")
    assert (await run(path, "-c", "version", typed=b"reboot\r\n"))[:2] == (0, VERSION)
    assert device.power.reboots == []


async def test_a_command_that_takes_no_bytes_does_not_wait_for_the_input_to_end(path: Path) -> None:
    process = await start(path, "-c", "file_create -o a 10")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"0\n"
    assert await asyncio.wait_for(process.wait(), 20) == 0


def test_the_shell_knows_which_commands_take_and_give_bytes() -> None:
    names = {name for c in build_registry() if c.payload_size for name in (c.name, c.short_name)}
    assert names == shell.TAKE_BYTES
    assert {"stream_read", "read"} == shell.GIVE_BYTES


async def test_long_answers_come_whole(path: Path) -> None:
    status, output, _ = await run(path, "-c", "get all")
    assert status == 0
    assert output.count(b"\n") == len(build_registry().variables.variables)


async def test_interrupt_cancels_and_the_answer_still_comes(path: Path, device: Device) -> None:
    device.updates.script = [UpdateProgress("downloading", 5, ""), UpdateProgress("idle", 0, "", done=True)]
    device.updates.gate = asyncio.Event()
    process = await start(path, "-c", "ota")
    assert process.stderr is not None
    assert await asyncio.wait_for(process.stderr.readline(), 20) == b"5% downloading\n"
    process.send_signal(signal.SIGINT)
    output, error = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, output) == (1, b"Command failed\n")
    assert b"cancelled" in error


async def test_a_second_interrupt_ends_the_shell_but_not_the_update(path: Path, device: Device) -> None:
    device.updates.script = [UpdateProgress("downloading", 5, ""), UpdateProgress("idle", 0, "done", done=True)]
    device.updates.gate = asyncio.Event()
    device.updates.past_cancelling = True
    process = await start(path, "-c", "ota")
    assert process.stderr is not None
    await asyncio.wait_for(process.stderr.readline(), 20)
    process.send_signal(signal.SIGINT)
    assert b"past cancelling" in await asyncio.wait_for(process.stderr.readline(), 20)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    device.updates.gate.set()
    run = device.ctx.update_runner.run
    assert run is not None
    assert [news.message async for news in run.watch()][-1] == "done"


async def test_nobody_there(tmp_path: Path) -> None:
    status, output, error = await run(tmp_path / "none.sock", "-c", "version")
    assert (status, output) == (69, b"")
    assert b"not running yet" in error


async def test_a_server_that_talks_nonsense(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"> what?\r\n> ")
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "x.sock"):
        status, output, error = await run(tmp_path / "x.sock", "-c", "version")
    assert (status, output) == (69, b"")
    assert b"closed the connection" in error


@pytest.mark.parametrize("arguments", [("-c",), ("version",), ("-c", "a", "b")])
async def test_wrong_usage(path: Path, arguments: tuple[str, ...]) -> None:
    status, _, error = await run(path, *arguments)
    assert status == 2
    assert b"Usage" in error


async def test_input_from_a_pipe(path: Path) -> None:
    status, output, error = await run(path, typed=b"version\nget ota.state\n")
    assert (status, error) == (0, b"")
    assert output.endswith(b"> get ota.state\r\nidle\r\n> ")


@asynccontextmanager
async def terminal(path: Path) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """Start the shell on a pseudo terminal; check that the terminal's settings are put back at the end."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = await start(path, fd=slave)
    try:
        await until(master, b"> ")
        assert termios.tcgetattr(slave) != before
        yield master, process
        await asyncio.wait_for(process.wait(), 20)
        assert termios.tcgetattr(slave) == before
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)
        os.close(slave)


async def until(master: int, part: bytes) -> bytes:
    os.set_blocking(master, False)
    got = b""
    async with asyncio.timeout(20):
        while part not in got:
            try:
                got += os.read(master, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.005)
    return got


async def test_a_person_at_a_terminal(path: Path) -> None:
    async with terminal(path) as (master, process):
        os.write(master, b"get ota.sta\t\r")
        assert b"get ota.state \r\nidle\r\n> " in await until(master, b"\r\n> ")
        os.write(master, b"rebo\x03")
        assert b"^C\r\n> " in await until(master, b"\r\n> ")
        os.write(master, b"\x04")
    assert process.returncode == 0


async def test_terminal_is_put_back_after_a_signal(path: Path) -> None:
    async with terminal(path) as (_, process):
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM


async def test_it_imports_little() -> None:
    program = "import sys; import zentrid.shell; print(' '.join(sys.modules))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", program, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    output, _ = await process.communicate()
    loaded = set(output.decode().split())
    assert {m for m in loaded if m.startswith("zentrid")} == {"zentrid", "zentrid.shell"}
    assert not loaded & {"asyncio", "typing", "re", "json", "dataclasses", "inspect", "logging", "pathlib"}
