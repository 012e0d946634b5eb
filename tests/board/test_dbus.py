"""The D-Bus door on the real board, in one boot: nothing before the first connection, the interface, who may, its ends.

And, as the board is up, what the panel asks it.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from scripts.board_driver.ssh import COMMAND_USER, ssh_command
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.places import PRODUCT
from scripts.lab.world import World
from scripts.panel.status import Status
from tests.board.conftest import BoardFactory
from tests.board.disks import board_from

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]

SEND = "dbus-send --system --print-reply --reply-timeout=60000 --dest=com.zentri.Device1 /com/zentri/Device1"
STATE = f"{SEND} org.freedesktop.DBus.Properties.Get string:com.zentri.Device1 string:State"
MOST_KIB = {"dbus-daemon": 6 * 1024, "zentrid.dbus": 36 * 1024}

PROGRAM = """
from gi.repository import GLib
from pydbus import SystemBus
device = SystemBus().get("com.zentri.Device1", "/com/zentri/Device1")
loop = GLib.MainLoop()
seen = []
def completed(code, message):
    print("completed", code, message)
    GLib.timeout_add(300, loop.quit)
device.PropertiesChanged.connect(lambda _name, values, _gone: seen.append(values))
device.Completed.connect(completed)
print(device.SafeMode, device.BootGood, [(name, slot["running"]) for name, slot in device.Slots])
print(device.Command("get system.boot.slot"))
print(bytes(device.CommandData("get system.boot.slot", b"")[1]))
device.MarkGood()
try:
    device.FactoryReset("00:00:00:00:00:00", False)
except GLib.Error as error:
    print(error.message)
device.Install("", {"version": GLib.Variant("s", "9.9.9")})
GLib.timeout_add_seconds(90, loop.quit)
loop.run()
print([values["State"] for values in seen if "State" in values])
"""


def processes(board: WatchedBoard) -> dict[str, list[str]]:
    """Return user and resident KiB of the door's processes, by what they are."""
    loop = "for p in /proc/[0-9]*; do echo $(stat -c %U $p) $(grep VmRSS $p/status) $(tr '\\0' ' ' < $p/cmdline); done"
    rows = [line.split() for line in board.succeed(f"({loop}) 2> /dev/null").splitlines()]
    return {part: [row[0], row[2]] for row in rows for part in MOST_KIB if len(row) > 4 and part in " ".join(row[4:])}


def test_in_one_boot(board: BoardFactory, prepared: Path, world: World) -> None:
    one = board_from(board, world, prepared)
    one.wait_for_healthy()
    assert processes(one) == {}, "it costs nothing before somebody wants it"
    assert one.succeed("stat -c '%U %G %a' /run/dbus/system_bus_socket").split() == ["root", "zentri", "660"]
    for user in ("nobody", "zentri-app", "zentri-ota"):
        assert "Permission denied" in one.fail(f"su -s /bin/sh {user} -c '{STATE}'")
    assert processes(one) == {}, "who may not connect starts nothing"
    assert 'string "idle"' in one.succeed(f"su -s /bin/sh zentri -c '{STATE}'")

    text = base64.b64encode(PROGRAM.encode()).decode()
    said = one.succeed(f"echo {text} | base64 -d | python3 -", timeout_s=150).splitlines()
    assert said[:4] == [
        "False True [('a', True), ('b', False), ('r', False)]", "(0, 'a', [])", r"b'a\r\n'",
        "GDBus.Error:com.zentri.Error.Failed: That is not this device's MAC address, so nothing was changed; 'get network.mac' "
        "prints it.",
    ], said  # fmt: skip
    # No server is there: the update begins and fails.
    assert said[4].startswith("completed 1 "), said
    assert said[5] == "['checking', 'idle']", said

    there = processes(one)
    assert {part: user for part, (user, _) in there.items()} == {
        "dbus-daemon": "messagebus",
        "zentrid.dbus": "zentri-dbus",
    }
    assert all(int(kib) < MOST_KIB[part] for part, (_, kib) in there.items()), there

    # Neither outlives the supervisor, and the next supervisor's door is a new one.
    before = one.succeed("pidof dbus-daemon").split()
    one.succeed("kill -9 $(cat /run/zentrid/alive)")
    one.wait_until_succeeds("! pidof dbus-daemon", timeout_s=5)
    assert processes(one) == {}
    one.wait_until_succeeds(STATE, timeout_s=120)
    assert set(processes(one)) == set(MOST_KIB)
    assert one.succeed("pidof dbus-daemon").split() != before
    print(there)
    panel_asks(one)


def panel_asks(board: WatchedBoard) -> None:
    """The panel of `make panel` asks this board the way it asks any: over one SSH session."""
    state = board.state()
    assert state is not None

    async def ask() -> dict[str, Any]:
        watched = asyncio.Event()
        watched.set()
        status = Status(lambda: ssh_command(state.ssh_port, board.options.key, COMMAND_USER, []), watched)
        task = asyncio.create_task(status.run())
        async with asyncio.timeout(30):
            while not status.latest["answers"]:
                await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
        return status.latest

    told = asyncio.run(ask())
    assert told["version"].startswith(f"{PRODUCT}-1.0.0")
    assert [slot[0] for slot in told["slots"]] == ["a", "b", "r"]
    assert told["update"]["state"] == "idle"
    assert len(told["faults"]) == 1
    assert "supervisor" in told["faults"][0]
