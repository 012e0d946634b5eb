"""The whole D-Bus door on a bus of the test's own: the real daemon with the device's policy, the real service, dbus-send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.bus import Bus, processes, running_bus
from tests.support.fakes import IDENTITY, Device
from zentrid.core.bootstate import Fault, add_fault
from zentrid.core.events import UpdateAdvanced, UpdateChanged
from zentrid.ports import UpdateProgress

CHANGED = "member=PropertiesChanged"


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def listening(bus: Bus) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Follow the signals as `dbus-monitor` shows them; gives a function that waits for some text and returns all until then."""
    process = await asyncio.create_subprocess_exec(
        "dbus-monitor", "--address", bus.address, "type='signal',sender='com.zentri.Device1'", stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    assert process.stdout is not None
    heard = ""

    async def wait_for(text: str) -> str:
        nonlocal heard
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while text not in heard:
                heard += " ".join((await process.stdout.readline()).decode().split()) + " "
        said, _, heard = heard.partition(text)
        return said + text

    try:
        await wait_for("NameAcquired")  # it is connected
        yield wait_for
    finally:
        process.kill()
        await process.communicate()


async def test_commands_and_properties(device: Device) -> None:
    device.boot_state.update(
        lambda state: add_fault(state, Fault("panic", "a", "1.4.0", 1, "2026-11-25T01:43:46Z", "x"))
    )
    async with running_bus(device) as bus:
        assert not processes(bus.path), "nothing runs before somebody connects"
        assert await bus.call("Command", "string:get sy u") == f'int32 0 string "{IDENTITY.uuid}" array [ ]'
        said = await bus.call("Command", "string:get nothing")
        assert said.startswith('int32 7 string "Bad argument" array [ string "There is no variable'), said
        assert (await bus.call("CommandData", "string:get sy u", "array:byte:")).startswith("int32 0 array of bytes")
        assert "InvalidArguments" in await bus.refused("Command", "string:get all\nreboot")
        assert device.power.reboots == []
        assert (
            await bus.get("Version")
            == 'string "DEMO-VIRT_SENSOR-1.4.0, 2026-11-01T10:00:00Z, Zentri-1.4.0, Board:virt"'
        )
        assert await bus.get("SafeMode") == "boolean false"
        assert await bus.get("Progress") == 'struct { int32 0 string "" int32 0 }'
        assert (await bus.get("Slots")).startswith(
            'array [ struct { string "a" array [ dict entry( string "version" variant string "1.4.0" ) dict entry( string '
            '"state" variant string "running" ) dict entry( string "tries" variant int32 3 )'
        )
        assert "panic, slot a" in await bus.get("Faults")
        assert await bus.call("FaultsReset") == ""
        assert await bus.get("Faults") == "array [ ]"
        status, said = await bus.send("org.freedesktop.DBus.Introspectable.Introspect")
        assert (status, '<method name="FactoryReset">' in said) == (0, True)
        status, said = await bus.send(
            "org.freedesktop.DBus.Properties.Set", "string:com.zentri.Device1", "string:State", "variant:string:idle"
        )
        assert status != 0, said
    assert not processes(bus.path), "nothing is left"


async def test_progress_and_the_end_of_an_update_are_signals(device: Device) -> None:
    device.updates.script = [UpdateProgress("rebooting", 100, "1.5.0 is installed.", done=True)]
    device.updates.gate = asyncio.Event()
    async with running_bus(device) as bus:
        await bus.get("State")
        async with listening(bus) as wait_for:
            assert await bus.python('device.Install("", {"version": GLib.Variant("s", "1.5.0")})') == ""
            assert [(o.version, o.force) for o in device.updates.asked] == [("1.5.0", False)]
            for event in (UpdateChanged("idle", "checking"), UpdateAdvanced("downloading", "1.5.0", 40, 7)):
                device.ctx.events.tell(event)
            said = await wait_for(
                'string "Progress" variant struct { int32 40 string "downloading release 1.5.0" int32 2 }'
            )
            assert CHANGED in said
            assert 'string "State" variant string "checking"' in said
            assert "com.zentri.Error.Busy" in await bus.python('device.Install("", {})')
            device.updates.gate.set()
            await wait_for('member=Completed int32 0 string "1.5.0 is installed."')
            assert "com.zentri.Error.Failed: There is no update to cancel" in await bus.refused("Cancel")


async def test_who_may_connect_but_not_call_is_refused(device: Device) -> None:
    async with running_bus(device, call=False) as bus:
        assert "AccessDenied" in await bus.refused("Command", "string:version")


async def test_nobody_else_may_take_the_name(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    async with running_bus(device, own=False) as bus:
        asking = asyncio.create_task(bus.send("com.zentri.Device1.Cancel"))
        await until(lambda: "not allowed to own the service" in caplog.text)
        assert not bus.door.done()
        asking.cancel()
        await asyncio.wait({asking})


async def gone(bus: Bus, pid: int) -> None:
    """Kill a process of the door; return when a call gets an answer again."""
    bus.kill(pid)
    async with asyncio.timeout(20):
        while (await bus.send("com.zentri.Device1.Command", "string:version"))[0]:
            await asyncio.sleep(0.05)
    assert pid not in processes(bus.path)


async def test_what_dies_comes_back_and_all_ends_when_nobody_is_left(device: Device) -> None:
    async with running_bus(device, idle_s=1.0) as bus:
        async with listening(bus) as wait_for:
            await bus.get("State")
            await gone(bus, bus.pids("zentrid.dbus")[0])
            await asyncio.sleep(1.5)
            [daemon] = bus.pids("dbus-daemon")  # somebody listens
            device.ctx.events.tell(UpdateChanged("idle", "checking"))
            await wait_for('variant string "checking"')
        await until(lambda: not processes(bus.path))
        assert await bus.get("State") == 'string "idle"', "the next one starts them"
        assert bus.pids("dbus-daemon") != [daemon]
        await gone(bus, bus.pids("dbus-daemon")[0])
        assert not bus.door.done()
