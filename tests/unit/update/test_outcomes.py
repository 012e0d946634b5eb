"""What becomes of an update after the restart, and that the server hears of it once."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import time
from contextlib import suppress
from typing import Any

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Release
from zentrid.core import names
from zentrid.core.bootstate import BootStateWriteError, Fault, add_fault
from zentrid.update.errors import DmsUnreachableError
from zentrid.update.journal import Entry, Journal


async def until_old(device: Device) -> None:
    """Restart, never healthy, until the tries are used up."""
    for _ in range(3):
        device.boot()
        await device.manager.start()
        assert device.manager.first_boot
    device.boot()
    await device.manager.start()
    assert (device.running, device.version) == ("a", "1.0.0")


async def test_rolled_back_because_the_supervisor_gave_up(device: Device, published: Release) -> None:
    await device.update()
    device.boot()
    await device.manager.start()
    await device.manager.on_unhealthy("the application did not start")
    await device.manager.on_unhealthy("something else later")
    await until_old(device) if device.store.read().b_left == 3 else None
    while device.running == "b":
        device.boot()
        await device.manager.start()
    [report] = await waiting(device)
    assert (report["event"], report["reason"], report["from"], report["to"], report["version"]) == (
        "rolled_back", "unhealthy", "1.0.0", "1.1.0", "1.0.0",
    )  # fmt: skip
    assert report["detail"] == "release 1.1.0 was not healthy in time: the application did not start"
    assert (device.manager.state, device.manager.last_result, device.manager.failed_version) == ("idle", 3, "1.1.0")


async def test_rolled_back_because_of_a_fault(device: Device, published: Release) -> None:
    await device.update()
    fault = Fault("panic", "b", "1.1.0", 3, "?", "Oops: 0000")
    device.store.update(lambda state: add_fault(state, fault))
    await until_old(device)
    [report] = await waiting(device)
    assert (report["reason"], report["detail"]) == ("panic", "release 1.1.0 ended in a fault (panic: Oops: 0000)")


async def test_the_faults_of_a_release_that_was_taken_back_do_not_count_against_the_old_one(
    device: Device, published: Release
) -> None:
    device.store.update(lambda state: add_fault(state, Fault("application", "a", "1.0.0", 9, "?")))
    await device.update()
    for _ in range(3):
        device.store.update(lambda state: add_fault(state, Fault("panic", "b", "1.1.0", 3, "?")))
    await until_old(device)
    state = device.store.read()
    assert (state.faults, [fault.cause for fault in state.fault_records]) == (1, ["application"])


async def test_rolled_back_without_a_word(device: Device, published: Release) -> None:
    await device.update()
    await until_old(device)
    [report] = await waiting(device)
    assert report["reason"] == "did_not_start"


async def test_a_target_damaged_before_its_first_boot(device: Device, published: Release) -> None:
    await device.update()
    with device.part("rootfs_b").open("r+b") as file:
        file.seek(4096 * 77)
        file.write(b"rot")
    device.boot()
    await device.manager.start()
    assert device.version == "1.0.0"
    [report] = await waiting(device)
    assert (report["event"], report["reason"]) == ("rolled_back", "did_not_start")


async def test_a_healthy_boot_without_an_update_only_ends_the_count(device: Device) -> None:
    await device.manager.start()
    before = device.store.read()
    await device.manager.on_healthy()
    await device.manager.on_unhealthy("not asked")
    assert device.store.read() == before
    assert await waiting(device) == []


async def test_healthy_is_not_healthy_when_it_cannot_be_written(device: Device, published: Release) -> None:
    await device.update()
    manager = device.boot()
    await manager.start()
    device.store.broken_from = 0
    with pytest.raises(BootStateWriteError):
        await manager.on_healthy()
    assert manager.first_boot
    assert await waiting(device) == []
    device.store.broken_from = None
    await manager.on_healthy()
    await manager.on_healthy()
    assert [report["event"] for report in await waiting(device)] == ["installed"]


async def test_the_power_goes_between_the_good_mark_and_the_journal(device: Device, published: Release) -> None:
    """The boot state counts: a release that was marked good needs no server again, else it would be given up for ever."""
    await device.update()
    await device.boot().start()
    journal = device.folder / "data" / "journal.json"
    before = journal.read_bytes()
    await device.manager.on_healthy()
    journal.write_bytes(before)
    for path in (device.folder / "data" / "outbox").iterdir():
        path.unlink()
    manager = device.boot()
    await manager.start()
    assert (device.running, manager.first_boot, manager.on_trial, manager.state) == ("b", False, False, "idle")
    assert [report["event"] for report in await waiting(device)] == ["installed"]


async def test_a_full_data_partition_at_the_first_boot_changes_nothing_of_what_it_must_prove(
    device: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    await device.update()
    manager = device.boot()
    with monkeypatch.context() as full:
        full.setattr("zentrid.update.journal.write_durable", no_space)
        await manager.start()
        assert manager.first_boot
        await manager.on_healthy()
        assert not manager.first_boot
    manager = device.boot()
    await manager.start()
    assert (device.running, manager.first_boot, manager.state) == ("b", False, "idle")
    assert [report["event"] for report in await waiting(device)] == ["installed"]


def no_space(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_release_that_cannot_see_its_journal_is_still_on_trial(device: Device, published: Release) -> None:
    """It may be the new release that cannot mount the data partition."""
    await device.update()
    shutil.rmtree(device.folder / "data")
    manager = device.boot()
    await manager.start()
    assert (device.running, manager.on_trial) == ("b", True)
    assert not manager.first_boot, "it is not known to be an update, so nothing more is asked than that it works"
    await manager.on_healthy()
    assert not manager.on_trial


async def test_nothing_is_on_trial_that_was_good_or_that_no_boot_state_could_take_back(device: Device) -> None:
    await device.manager.start()
    assert not device.manager.on_trial
    with device.part("bootstate").open("r+b") as file:
        file.write(b"\xff" * names.MIB)
    await device.start().start()
    assert not device.manager.on_trial


@pytest.mark.parametrize(
    ("name", "value"), [("pending", {"x": 1}), ("pending", {"id": "../../x"}), ("result", float("inf"))]
)
async def test_nothing_in_a_damaged_journal_keeps_the_supervisor_from_coming_up(
    device: Device, published: Release, name: str, value: object
) -> None:
    await device.update()
    journal = device.folder / "data" / "journal.json"
    journal.write_text(json.dumps({**json.loads(journal.read_text()), name: value}))
    manager = device.boot()
    await manager.start()
    assert device.running == "b"
    assert sorted(path.name for path in (device.folder / "data").iterdir()) in (
        ["journal.json", "outbox", "tuf"], ["journal.json", "tuf"],
    )  # fmt: skip


async def test_an_outbox_that_cannot_be_read_does_not_end_the_supervisor(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(_outbox: object) -> int:
        raise OSError(errno.EUCLEAN, "Structure needs cleaning")

    caplog.set_level("INFO")
    monkeypatch.setattr("zentrid.update.outbox.Outbox.__len__", damaged)
    task = asyncio.create_task(device.manager.dms.keep_in_touch(first_boot=False))
    done, _ = await asyncio.wait([task], timeout=0.3)
    assert not done
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert "Structure needs cleaning" in caplog.text


async def test_faults_are_forgotten_after_a_successful_update(device: Device, published: Release) -> None:
    device.store.update(lambda state: add_fault(state, Fault("panic", "a", "1.0.0", 3, "?")))
    await device.manager.on_healthy()
    assert device.store.read().faults == 1
    await device.update()
    await device.boot().start()
    await device.manager.on_healthy()
    assert device.store.read().faults == 0


async def test_a_report_made_offline_arrives_later_and_once(
    device: Device, doorman: Doorman, published: Release
) -> None:
    doorman.habits.refuse["report"] = (500, "busy")
    await device.update()
    await device.boot().start()
    await device.manager.on_healthy()
    [report] = await waiting(device)
    with pytest.raises(Exception, match="busy"):
        await device.manager.dms.deliver()
    assert await waiting(device) == [report]
    doorman.habits.refuse.clear()
    device.boot()
    await device.manager.start()
    assert await device.manager.dms.deliver() == 1
    assert [item["id"] for item in doorman.reports] == [report["id"]]
    assert await waiting(device) == []


async def test_the_power_goes_between_delivery_and_forgetting(
    device: Device, doorman: Doorman, published: Release
) -> None:
    """The report is sent again with the same id, so the server has it once."""
    await device.update()
    await device.boot().start()
    await device.manager.on_healthy()
    [report] = await waiting(device)
    await device.manager.dms.deliver()
    await asyncio.to_thread(device.manager._ledger.outbox.put, report)
    assert await device.manager.dms.deliver() == 1
    assert len(doorman.reports) == 1


async def test_a_report_that_the_server_cannot_read_does_not_stop_the_others(
    device: Device, doorman: Doorman, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [f"6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d1{n}" for n in range(3)]
    for report_id in ids:
        await asyncio.to_thread(device.manager._ledger.outbox.put, {"id": report_id, "event": "failed"})
    doorman.habits.refuse_ids = {ids[1]}
    assert await device.manager.dms.deliver() == 3
    assert [report["id"] for report in doorman.reports] == [ids[0], ids[2]]
    assert await waiting(device) == []
    assert f"refused report {ids[1]} for its content (400: bad report); dropped" in caplog.text


async def test_keeping_in_touch(device: Device, doorman: Doorman, published: Release) -> None:
    """On a first boot the server is looked for; reports go as soon as they are made."""
    await device.update()
    manager = device.boot()
    await manager.start()
    task = asyncio.create_task(manager.dms.keep_in_touch(first_boot=manager.first_boot))
    async with asyncio.timeout(10):
        while not manager.dms.reached:
            await asyncio.sleep(0.02)
        await manager.on_healthy()
        while not doorman.reports:
            await asyncio.sleep(0.02)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert doorman.reports[0]["event"] == "installed"


async def test_no_server_is_no_error_for_the_outcome(device: Device, published: Release) -> None:
    await device.update()
    device.parts_changes["server"] = lambda: ("127.0.0.1", 1)
    await device.boot().start()
    await device.manager.on_healthy()
    assert device.manager.state == "idle"
    with pytest.raises(DmsUnreachableError):
        await device.manager.dms.deliver()
    assert len(await waiting(device)) == 1


async def test_a_damaged_journal_counts_as_none(device: Device, published: Release) -> None:
    await device.update()
    (device.folder / "data" / "journal.json").write_bytes(b'{"state": "verif')
    manager = device.boot()
    await manager.start()
    assert (device.version, manager.state) == ("1.1.0", "idle")
    await manager.on_healthy()
    assert device.store.read().b_good


async def test_a_data_partition_that_fails_does_not_keep_a_good_release_from_being_good(
    device: Device, published: Release
) -> None:
    """What counts is the boot state; the report follows when there is a journal again."""
    await device.update()
    manager = device.boot()
    await manager.start()
    data = device.folder / "data"
    data.rename(device.folder / "gone")
    data.write_bytes(b"no folder")
    await manager.on_healthy()
    assert device.store.read().b_good
    assert not manager.first_boot
    await manager.on_unhealthy("too late")
    data.unlink()
    (device.folder / "gone").rename(data)
    manager = device.boot()
    await manager.start()
    await manager.on_healthy()
    assert [report["event"] for report in await waiting(device)] == ["installed"]


async def test_the_supervisor_comes_up_without_a_data_partition(device: Device, published: Release) -> None:
    await device.update()
    manager = device.boot()
    data = device.folder / "data"
    data.rename(device.folder / "gone")
    data.write_bytes(b"no folder")
    await manager.start()
    last = await device.update()
    assert not last.ok


async def test_an_update_that_is_asked_for_while_the_boot_becomes_good(
    device: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both conclude the update before: one of them does it, and neither ends the supervisor."""
    await device.update()
    await device.boot().start()
    save = Journal.save

    def slow(journal: Journal, **changes: Any) -> Entry:
        time.sleep(0.1)
        return save(journal, **changes)

    monkeypatch.setattr(Journal, "save", slow)
    good = asyncio.create_task(device.manager.on_healthy())
    while not device.store.read().good("b"):
        await asyncio.sleep(0.001)
    last = await device.update()
    await good
    assert (last.ok, last.result, device.manager.state) == (True, 2, "idle")
    assert [report["event"] for report in await waiting(device)] == ["installed"]


def test_what_is_remembered_while_the_journal_is_written_stays(device: Device) -> None:
    def meanwhile(_step: str) -> None:
        journal.remember(to_version="1.1.0")

    journal = Journal(device.folder / "a journal", meanwhile)
    journal.save(failed_version="1.0.0")
    assert (journal.entry.failed_version, journal.entry.to_version) == ("1.0.0", "1.1.0")
