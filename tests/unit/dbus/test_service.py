"""The service without D-Bus: on the device's real command line, with everything that it does in one list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from tests.support.commandline import console
from tests.support.fakes import IDENTITY, Device
from zentrid.consoleclient import Result
from zentrid.core.bootstate import Fault, add_fault
from zentrid.core.events import FaultRecorded, UpdateAdvanced, UpdateChanged
from zentrid.dbus import console as console_module
from zentrid.dbus import service as service_module
from zentrid.dbus.console import BadLineError, Console, ConsoleError
from zentrid.dbus.model import Completion, Progress, Properties
from zentrid.dbus.service import CallError, Service
from zentrid.ports import UpdateOptions, UpdateProgress

FAULT = Fault("panic", "a", "1.4.0", 108, "2026-11-25T01:43:46Z", "sysrq: crash")


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[None]:
    with blockbuster_ctx("zentrid"):
        yield


class Recorder:
    """Who listens: keeps what was signalled."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.endings: list[Completion] = []
        self.now = Properties()

    def changed(self, now: Properties, names: tuple[str, ...]) -> None:
        """Keep it."""
        self.now = now
        self.seen += [(name, getattr(now, name)) for name in names]

    def completed(self, ending: Completion) -> None:
        """Keep it."""
        self.endings.append(ending)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


@asynccontextmanager
async def serving(device: Device, folder: Path) -> AsyncIterator[tuple[Service, Recorder]]:
    """Run the command line and a service that has read the properties once."""
    device.ctx.events.attach()
    async with console(device, folder / "console.sock") as path:
        recorder = Recorder()
        service = Service(Console(path), recorder)
        task = asyncio.create_task(service.run())
        try:
            await recorder.until(lambda: recorder.now.version and len(device.ctx.events._followers) == 1)
            yield service, recorder
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_commands_have_their_code_their_text_and_their_reasons(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path) as (service, _):
        assert await service.call("Command", ("get sy u",)) == (0, IDENTITY.uuid, [])
        code, text, log = await service.call("Command", ("verson",))
        assert (code, text) == (3, "Unknown command")
        assert log == ["There is no command 'verson'; 'help commands' lists the ones there are."]
        assert await service.call("CommandData", ("get sy u", [])) == (0, f"{IDENTITY.uuid}\r\n".encode(), [])


async def test_reasons_come_whatever_the_device_shows_its_other_sessions(device: Device, tmp_path: Path) -> None:
    device.settings.values.set("system.print_level", "none")
    device.settings.values.set("system.cmd.buffered", value=True)
    async with serving(device, tmp_path) as (service, recorder):
        assert (await service.call("Command", ("verson",)))[2] != []
        device.ctx.events.tell(UpdateChanged("idle", "checking"))
        await recorder.until(lambda: recorder.now.state == "checking")
        assert device.settings.values.text("system.print_level") == "none"


async def test_bytes_behind_a_line_are_no_commands(device: Device, tmp_path: Path) -> None:
    device.settings.values.set("system.print_level", "none")
    async with serving(device, tmp_path) as (service, _):
        for line in ("file_create my notes.txt 8", "file_creat a 8", "version"):
            code, _, log = await service.call("CommandData", (line, list(b"reboot\r\n")))
            assert (code == 0) is (line == "version")
            assert log or not code, line
        assert (await service.call("CommandData", ("file_create a 8", list(b"reboot\r\n"))))[0] == 0
    assert device.power.reboots == []


@pytest.mark.parametrize(
    "line", ["get all\nreboot", "get all\rreboot", "version\x03", "", "   ", "x" * 2049, "\0machine"]
)
async def test_what_is_not_one_line_is_refused(device: Device, tmp_path: Path, line: str) -> None:
    async with serving(device, tmp_path) as (service, _):
        with pytest.raises(CallError) as caught:
            await service.call("Command", (line,))
        assert caught.value.reason == "InvalidArguments"
        assert device.power.reboots == []


async def test_a_command_without_an_end_of_its_own_ends(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path) as (service, _), asyncio.timeout(5):
        code, _, log = await service.call("Command", ("events",))
        assert (code, log) == (1, ["Cancelled."])


async def test_a_console_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    service = Service(Console(tmp_path / "none"), Recorder())
    with pytest.raises(CallError, match="not running now") as caught:
        await service.call("Command", ("version",))
    assert caught.value.reason == "Unavailable"
    assert (await service.fresh()) == Properties()


@pytest.mark.parametrize("garbage", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"R0000", b"R099999\r\nshort"])
async def test_a_console_that_speaks_another_language_is_unavailable(tmp_path: Path, garbage: bytes) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "sock"):
        with pytest.raises(ConsoleError):
            await Console(tmp_path / "sock").command("version")


async def test_a_console_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "ANSWER_S", 0.05)

    async def read_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.sleep(0.2)
        writer.close()

    async with await asyncio.start_unix_server(read_only, tmp_path / "sock"):
        with pytest.raises(ConsoleError, match="does not answer"):
            await Console(tmp_path / "sock").command("version")
        await asyncio.sleep(0.3)


async def test_a_console_that_stops_in_the_middle_holds_up_no_property(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "READ_LIMIT_S", 0.1)
    tested, closed = asyncio.Event(), asyncio.Event()

    async def two_answers(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"R000008\r\nSet OK\r\n" * 2)
        await tested.wait()
        writer.close()
        closed.set()

    async with await asyncio.start_unix_server(two_answers, tmp_path / "sock"):
        service = Service(Console(tmp_path / "sock"), Recorder())
        async with asyncio.timeout(5):
            assert list(await asyncio.gather(service.fresh(), service.fresh())) == [Properties(), Properties()]
        tested.set()
        await closed.wait()
        await asyncio.sleep(0.05)


def test_bytes_that_are_no_text_become_one_that_a_dbus_string_may_hold() -> None:
    assert Result(0, b"a\0b\xff\r\nc\r\n").text == "a\ufffdb\ufffd\nc"


async def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(BadLineError):
        await Console(Path("/nowhere")).command("write 0 70000", bytes(console_module.MAX_DATA_BYTES + 1))


async def test_a_command_that_hangs_is_given_up_and_calls_are_limited(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "COMMAND_LIMIT_S", 0.5)
    monkeypatch.setattr(service_module, "MAX_CALLS", 3)
    device.dms.delay_s = 60
    async with serving(device, tmp_path) as (service, _):
        calls = [asyncio.create_task(service.call("Command", ("dms status",))) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(CallError) as caught:
            await service.call("Command", ("version",))
        assert caught.value.reason == "Busy"
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [error.reason for error in errors if isinstance(error, CallError)] == ["TimedOut"] * 3
        assert (await service.call("Command", ("version",)))[0] == 0


async def test_nothing_holds_up_cancel(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_CALLS", 4)
    device.dms.delay_s = 60
    async with serving(device, tmp_path) as (service, _), asyncio.timeout(10):
        calls = [asyncio.create_task(service.call("Command", ("dms status",))) for _ in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(CallError, match="no update to cancel"):
            await service.call("Cancel", ())
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


# --- the other methods ------------------------------------------------------------------------------------------------------
async def test_faults_are_reset_and_the_property_says_so(device: Device, tmp_path: Path) -> None:
    device.boot_state.update(lambda state: add_fault(state, FAULT))
    async with serving(device, tmp_path) as (service, recorder):
        assert recorder.now.faults == ("panic, slot a, version 1.4.0, up 108 s, 2026-11-25T01:43:46Z, sysrq: crash",)
        assert await service.call("FaultsReset", ()) == ()
        assert device.boot_state.read().faults == 0
        await recorder.until(lambda: recorder.now.faults == ())
        device.boot_state.broken = True
        with pytest.raises(CallError) as caught:
            await service.call("FaultsReset", ())
        assert caught.value.reason == "Failed"


async def test_a_factory_reset_wants_the_mac(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path) as (service, _):
        for mac in ("52:54:00:00:00:00", "", '" reboot', "-s"):
            with pytest.raises(CallError):
                await service.call("FactoryReset", (mac, False))
        assert device.boot_state.read().factory_reset == 0
        await service.call("FactoryReset", (IDENTITY.mac, True))
        assert device.boot_state.read().factory_reset == 2
        await asyncio.wait_for(device.power.rebooted.wait(), 5)
        await service.call("FactoryReset", (IDENTITY.mac, False))
        assert device.boot_state.read().factory_reset == 1


async def test_mark_good(device: Device, tmp_path: Path) -> None:
    marked = []

    async def mark_good() -> str:
        marked.append(1)
        return "This boot is good."

    device.ctx.mark_good = mark_good
    async with serving(device, tmp_path) as (service, _):
        assert await service.call("MarkGood", ()) == ()
    assert marked == [1]


async def test_an_update_begins_goes_on_and_completes(device: Device, tmp_path: Path) -> None:
    device.updates.script = [
        UpdateProgress("downloading", 10, ""),
        UpdateProgress("rebooting", 100, "1.5.0 is installed.", done=True, reboot=True),
    ]
    device.settings.values.set("ota.reboot", "manual")
    device.updates.gate = asyncio.Event()
    async with serving(device, tmp_path) as (service, recorder):
        assert await service.call("Install", ("", {"version": "1.5.0", "force": True})) == ()
        assert device.updates.asked == [UpdateOptions(force=True, version="1.5.0")]
        assert recorder.endings == []
        with pytest.raises(CallError) as caught:
            await service.call("Install", ("", {}))
        assert caught.value.reason == "Busy"
        for event in (
            UpdateChanged("idle", "checking"),
            UpdateAdvanced("downloading", "1.5.0", 40, 1),
            UpdateChanged("activating", "rebooting", "1.5.0"),
        ):
            device.ctx.events.tell(event)
        await recorder.until(lambda: ("progress", Progress(40, "downloading release 1.5.0", 2)) in recorder.seen)
        device.updates.gate.set()
        await recorder.until(lambda: recorder.endings)
        await asyncio.sleep(0.05)
        assert recorder.endings == [Completion(0, "1.5.0 is installed.\nUse 'reboot' to start it.")]
        await service.call("Install", ("", {}))
        assert len(device.updates.asked) == 2, "another one may begin"


async def test_an_update_that_fails_at_once_is_an_error(device: Device, tmp_path: Path) -> None:
    device.updates.script = [UpdateProgress("idle", 0, "the file is no bundle", done=True, ok=False)]
    async with serving(device, tmp_path) as (service, recorder):
        with pytest.raises(CallError, match="the file is no bundle"):
            await service.call("Install", ("/data/with blank.zb", {}))
        assert device.updates.asked == [UpdateOptions(source="/data/with blank.zb")]
        assert recorder.endings == []


async def test_an_update_that_is_refused_late_completes(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "BEGIN_S", 0.05)
    device.updates.script = [UpdateProgress("idle", 0, "the file is no bundle", done=True, ok=False)]
    device.updates.gate = asyncio.Event()
    async with serving(device, tmp_path) as (service, recorder):
        assert await service.call("Install", ("/data/slow.zb", {})) == ()
        device.updates.gate.set()
        await recorder.until(lambda: recorder.endings)
        assert [(ending.code, ending.message) for ending in recorder.endings] == [(1, "the file is no bundle")]


@pytest.mark.parametrize("options", [{"version": 1}, {"force": "yes"}, {"speed": "high"}, {"version": "1\n2"}])
async def test_options_that_there_are_not(device: Device, tmp_path: Path, options: dict[str, Any]) -> None:
    async with serving(device, tmp_path) as (service, _):
        with pytest.raises(CallError):
            await service.call("Install", ("", options))
        assert device.updates.asked == []


async def test_an_update_is_cancelled(device: Device, tmp_path: Path) -> None:
    device.updates.script = [UpdateProgress("rebooting", 100, "", done=True)]
    device.updates.gate = asyncio.Event()
    async with serving(device, tmp_path) as (service, _):
        with pytest.raises(CallError, match="no update to cancel"):
            await service.call("Cancel", ())
        await service.call("Install", ("", {}))
        assert await service.call("Cancel", ()) == ()


# --- properties -------------------------------------------------------------------------------------------------------------
async def test_properties_are_read_and_followed(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path) as (service, recorder):
        await recorder.until(lambda: recorder.now.slots)
        assert [slot.name for slot in recorder.now.slots] == ["a", "b", "r"]
        assert recorder.now.safe_mode is False
        device.boot_state.update(lambda state: add_fault(state, FAULT))
        device.ctx.events.tell(FaultRecorded("panic", "sysrq: crash"))
        await recorder.until(lambda: len(recorder.now.faults) == 1)
        recorder.seen.clear()
        await service._read()
        assert recorder.seen == [], "nothing has changed, so nothing is signalled"


async def test_safe_mode_is_seen(tmp_path: Path) -> None:
    async with serving(Device(tmp_path / "zentri", safe_mode=True), tmp_path) as (_, recorder):
        assert recorder.now.safe_mode is True


async def test_what_was_asked_for_is_as_fresh_as_a_second(device: Device, tmp_path: Path) -> None:
    async with serving(device, tmp_path) as (service, _):
        service._read_s = float("-inf")
        device.updates.available = "1.5.0"
        assert (await service.fresh()).available == "1.5.0"
        device.updates.available = "1.6.0"
        assert (await service.fresh()).available == "1.5.0", "just read"


async def test_a_console_that_comes_back_is_followed_again(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "AGAIN_S", 0.05)
    device.ctx.events.attach()
    recorder = Recorder()
    task = asyncio.create_task(Service(Console(tmp_path / "console.sock"), recorder).run())
    for number in (1, 2):

        def heard(percent: int = number * 10) -> bool:
            # Told again and again: who followed before the console went away is no sign that somebody follows now.
            device.ctx.events.tell(UpdateAdvanced("downloading", "1.5.0", percent, 0))
            return recorder.now.progress.percent == percent

        async with console(device, tmp_path / "console.sock"):
            await recorder.until(heard)
            recorder.now = Properties()
        await recorder.until(lambda: not device.ctx.events._followers)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})
