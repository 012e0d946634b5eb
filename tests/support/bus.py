"""A system bus of a test's own: the device's configuration, for this user, at another place."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.commandline import console
from tests.support.fakes import Device
from zentrid.adapters.busdoor import BusDoor

TOP = Path(__file__).resolve().parents[2]
CONFIGURATION = TOP / "rootfs_overlay/etc/dbus-1/zentri.conf"
PYTHON = "/usr/bin/python3"
"""The one that has Debian's pydbus."""
SEND_S = 30.0


def configuration(folder: Path, *, own: bool = True, call: bool = True) -> str:
    """Return the device's configuration with this user in the place of its users; or of one who may not own or call.

    `folder`: gets what the configuration refers to.
    """
    shutil.copytree(CONFIGURATION.parent / "services", folder / "services")
    me = getpass.getuser()
    text = CONFIGURATION.read_text()
    text = text.replace('policy user="zentri-dbus"', f'policy user="{me if own else "daemon"}"')
    text = text.replace('<policy group="zentri">', '<policy user="daemon">')
    text = text.replace('<allow group="zentri"/>', "").replace('user="root"', f'user="{me}"')
    if not call:
        text = text.replace('<allow send_destination="com.zentri.Device1"/>', "")
    text = text.replace("/etc/dbus-1/services", str(folder / "services"))
    return re.sub(r"<includedir>.*</includedir>", "", text)


@dataclass(frozen=True)
class Bus:
    """A running door."""

    path: Path
    device: Device
    door: asyncio.Task[None]

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"unix:path={self.path}"

    def pids(self, program: str) -> list[int]:
        """Return the processes of this door whose command line has `program`."""
        return [pid for pid, command in processes(self.path).items() if program in command]

    def kill(self, pid: int) -> None:
        """Kill a process of this door."""
        assert pid in processes(self.path)
        os.kill(pid, signal.SIGKILL)

    async def send(self, *words: str) -> tuple[int, str]:
        """Run dbus-send against the object; return its exit status, and what it printed with blanks and newlines as one blank."""
        process = await asyncio.create_subprocess_exec(
            "dbus-send", f"--bus={self.address}", "--dest=com.zentri.Device1", "--print-reply", "--reply-timeout=20000",
            "/com/zentri/Device1", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(SEND_S):
            said, _ = await process.communicate()
        lines = said.decode().split("\n")
        return process.returncode or 0, " ".join(
            " ".join(lines[1:] if lines[0].startswith("method return") else lines).split()
        )

    async def python(self, line: str) -> str:
        """Run a line of Python that has `device`, as a program on the device would have it; return what it printed."""
        code = "from gi.repository import GLib\nfrom pydbus import SystemBus\ndevice = SystemBus().get('com.zentri.Device1')\n"
        process = await asyncio.create_subprocess_exec(
            PYTHON, "-c", code + line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={"DBUS_SYSTEM_BUS_ADDRESS": self.address},
        )  # fmt: skip
        async with asyncio.timeout(SEND_S):
            said, _ = await process.communicate()
        return said.decode()

    async def call(self, method: str, *words: str) -> str:
        """Call a method of the interface that must succeed; return what it gave."""
        status, said = await self.send(f"com.zentri.Device1.{method}", *words)
        assert status == 0, said
        return said

    async def refused(self, method: str, *words: str) -> str:
        """Call a method of the interface that must fail; return the error."""
        status, said = await self.send(f"com.zentri.Device1.{method}", *words)
        assert status != 0, said
        return said

    async def get(self, name: str) -> str:
        """Return a property."""
        status, said = await self.send(
            "org.freedesktop.DBus.Properties.Get", "string:com.zentri.Device1", f"string:{name}"
        )
        assert status == 0, said
        return said.removeprefix("variant ")


@asynccontextmanager
async def running_bus(
    device: Device, *, service: Sequence[str] = (), idle_s: float = 600.0, own: bool = True, call: bool = True
) -> AsyncIterator[Bus]:
    """Run the command line of `device` and the D-Bus door before it, with the real daemon and the real service."""
    # Not pytest's folder, which only this user may enter: the daemon becomes another one where it can.
    folder = Path(tempfile.mkdtemp(prefix="zentri-bus-"))
    folder.chmod(0o755)
    device.ctx.events.attach()
    try:
        async with (
            console(device, folder / "console.sock"),
            _door(folder, service, idle_s, own=own, call=call) as (path, door),
        ):
            yield Bus(path, device, door)
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def _door(
    folder: Path, service: Sequence[str], idle_s: float, *, own: bool, call: bool
) -> AsyncIterator[tuple[Path, asyncio.Task[None]]]:
    """Run the D-Bus door alone; give the bus's socket and the door."""
    (folder / "bus.conf").write_text(configuration(folder, own=own, call=call))
    path = folder / "bus"
    python = ["/usr/bin/env", f"PYTHONPATH={TOP}", f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={path}",
              f"ZENTRI_CONSOLE_SOCKET={folder / 'console.sock'}", PYTHON, "-m"]  # fmt: skip
    door = BusDoor(
        path, configuration=folder / "bus.conf", daemon=[*python, "zentrid.dbus.launch"],
        service=service or [*python, "zentrid.dbus"], idle_s=idle_s, look_every_s=0.1, pauses_s=(0.1,),
    )  # fmt: skip
    task = asyncio.create_task(door.run())
    try:
        async with asyncio.timeout(10):
            while not path.exists():
                await asyncio.sleep(0.01)
        yield path, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def processes(path: Path) -> dict[int, str]:
    """Return the command lines of the processes that have the folder of this socket in their environment or command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if str(path.parent).encode() in command + (entry / "environ").read_bytes():
                found[int(entry.name)] = command.replace(b"\0", b" ").decode()
    return found
