"""Releases that need another one first: reached by way of it, without a person; every way ends somewhere and is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import doorman as module
from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, make_rootfs
from tests.support.items import add, file
from zentrid.core.chain import MAX_STEPS
from zentrid.ports import UpdateProgress


def publish(fleet: Fleet, device: Device, *steps: tuple[str, str | None]) -> list[Release]:
    """Publish releases, each with the version that it needs first."""
    made = [
        make_release(version, make_rootfs(number + 2, blocks=240), min_version=lowest)
        for number, (version, lowest) in enumerate(steps)
    ]
    fleet.publish(*made)
    device.known |= {release.version: release for release in made}
    return made


async def restart(device: Device, *, healthy: bool = True) -> None:
    await device.boot().start()
    if healthy:
        await device.manager.on_healthy()


async def go_on(device: Device) -> UpdateProgress:
    options = device.manager.next_step
    assert options is not None
    news = [item async for item in device.manager.run(options)]
    return news[-1]


async def events(device: Device) -> list[tuple[str, str, str | None]]:
    return [(report["event"], report["to"], report["reason"]) for report in await waiting(device)]


async def test_by_way_of_two_others(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    publish(fleet, device, ("1.5.0", None), ("2.0.0", "1.5.0"), ("3.0.0", "2.0.0"))
    doorman.offer = "3.0.0"
    looked = await device.update(check_only=True)
    assert looked.message == "Update available: DEMO-VIRT_SENSOR-3.0.0, by way of 1.5.0."
    assert device.manager.available == "3.0.0"
    last = await device.update()
    assert last.message == "Updated to DEMO-VIRT_SENSOR-1.5.0. After the restart it goes on to 3.0.0."
    assert device.manager.next_step is None, "not before it runs and is healthy"
    await restart(device, healthy=False)
    assert (device.version, device.manager.next_step) == ("1.5.0", None)
    await device.manager.on_healthy()
    assert (await go_on(device)).message.startswith("Updated to DEMO-VIRT_SENSOR-2.0.0. After")
    await restart(device)
    assert (await go_on(device)).message == "Updated to DEMO-VIRT_SENSOR-3.0.0."
    await restart(device)
    assert (device.version, device.manager.next_step) == ("3.0.0", None)
    assert [check["want"] for check in doorman.checks[2:5]] == ["1.5.0", None, "2.0.0"]
    reports = await waiting(device)
    assert [(r["event"], r["to"]) for r in reports] == [("installed", v) for v in ("1.5.0", "2.0.0", "3.0.0")]
    assert reports[0]["detail"] == "release 1.5.0 runs and is healthy; release 3.0.0 is next"
    assert reports[2]["detail"] == "release 3.0.0 runs and is healthy"


async def test_the_way_is_remembered_over_a_restart_that_comes_in_between(
    device: Device, doorman: Doorman, fleet: Fleet
) -> None:
    publish(fleet, device, ("1.5.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    await device.update(by_itself=True)
    await restart(device)
    await restart(device)
    step = device.manager.next_step
    assert step is not None
    assert (step.version, step.goes_on, step.by_itself) == ("2.0.0", True, True)


async def test_without_the_step_on_the_server_it_is_said_what_to_publish(
    device: Device, doorman: Doorman, fleet: Fleet
) -> None:
    publish(fleet, device, ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    doorman.habits.unpublished = {"1.5.0"}
    before = device.snapshot(), device.store.read()
    last = await device.update()
    assert (last.ok, last.reason) == (False, "min_version")
    assert last.message == (
        "release 2.0.0 needs release 1.5.0 to be installed first, and the server does not have it for this device; "
        "publish release 1.5.0"
    )
    assert (device.snapshot(), device.store.read()) == before
    assert await events(device) == [("failed", "2.0.0", "min_version")]


async def test_a_step_without_firmware_leads_nowhere(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    """It would be installed, and the release behind it be no nearer."""
    publish(fleet, device, ("2.0.0", "1.5.0"))
    fleet.publish(add(None, "1.5.0", [file("rules", b"new")]))
    doorman.offer = "2.0.0"
    last = await device.update()
    assert (last.ok, last.reason) == (False, "min_version")
    assert "release 1.5.0 holds only applications and files" in last.message
    assert await events(device) == [("failed", "2.0.0", "min_version")]


async def test_a_way_may_end_in_applications_and_files(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    publish(fleet, device, ("1.5.0", None))
    fleet.publish(add(None, "2.0.0", [file("rules", b"new")], min_version="1.5.0"))
    doorman.offer = "2.0.0"
    assert (await device.update()).ok
    await restart(device)
    assert (await go_on(device)).message == "Updated to DEMO-VIRT_SENSOR-2.0.0."
    assert (device.manager.next_step, device.manager.version) == (None, "2.0.0")
    reports = await waiting(device)
    assert reports[-1]["detail"] == "release 2.0.0 is in use and healthy"


async def test_a_server_that_answers_with_another_release_is_not_followed(
    device: Device, doorman: Doorman, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(fleet, device, ("1.4.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    original = module._Handler._check

    def liar(handler: module._Handler, body: dict[str, Any]) -> None:
        original(handler, {**body, "want": "1.4.0" if body["want"] else None})

    monkeypatch.setattr(module._Handler, "_check", liar)
    last = await device.update()
    assert (last.ok, last.reason) == (False, "bad_manifest")
    assert "another release than the one that was asked for" in last.message


async def test_a_way_that_is_too_long_is_not_begun(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    steps = [(f"{number}.0.0", f"{number - 1}.0.0") for number in range(3, 3 + MAX_STEPS + 1)]
    publish(fleet, device, ("2.0.0", None), *steps)
    doorman.offer = steps[-1][0]
    before = device.snapshot(), device.store.read()
    last = await device.update()
    assert (last.ok, last.reason) == (False, "min_version")
    assert f"more than {MAX_STEPS} others" in last.message
    assert (device.snapshot(), device.store.read()) == before


async def test_a_way_that_grows_while_it_is_gone_ends(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    """A publisher (or somebody with his key) who asks for one more step each time does not keep a device restarting for ever."""
    publish(fleet, device, ("1.5.0", None), ("9.0.0", "1.5.0"))
    doorman.offer = "9.0.0"
    await device.update()
    await restart(device)
    for number in range(2, 2 + MAX_STEPS):
        assert fleet.delegated is not None
        del fleet.delegated.signed.targets["DEMO-VIRT_SENSOR/9.0.0/manifest.json"]
        publish(fleet, device, (f"{number}.0.0", None), ("9.0.0", f"{number}.0.0"))
        last = await go_on(device)
        if not last.ok:
            break
        await restart(device)
    assert (last.ok, last.reason, device.version) == (False, "min_version", f"{MAX_STEPS}.0.0")
    assert device.manager.next_step is None
    assert (await events(device))[-1] == ("failed", "9.0.0", "min_version")


async def test_a_step_that_is_taken_back_ends_the_way(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    publish(fleet, device, ("1.5.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    await device.update()
    for _ in range(4):
        await restart(device, healthy=False)
    await device.manager.on_healthy()
    assert (device.version, device.manager.next_step, device.manager.failed_version) == ("1.0.0", None, "1.5.0")
    [report] = await waiting(device)
    assert (report["event"], report["to"]) == ("rolled_back", "1.5.0")
    assert report["detail"].endswith("; the way to release 2.0.0 ends here")
    again = await device.update(by_itself=True)
    assert (again.ok, again.reason) == (False, "not_by_itself")
    assert "release 1.5.0 was installed before and had to be taken back" in again.message
    assert len(await waiting(device)) == 1, "passing it over is nothing to report"


async def test_a_goal_that_is_withdrawn_ends_the_way_with_a_report(
    device: Device, doorman: Doorman, fleet: Fleet
) -> None:
    publish(fleet, device, ("1.5.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    await device.update()
    await restart(device)
    doorman.habits.unpublished = {"2.0.0"}
    last = await go_on(device)
    assert not last.ok
    assert device.manager.next_step is None
    assert await events(device) == [("installed", "1.5.0", None), ("failed", "2.0.0", "dms_refused")]
    await restart(device)
    assert device.manager.next_step is None


async def test_a_server_out_of_reach_ends_no_way(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    publish(fleet, device, ("1.5.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    await device.update()
    await restart(device)
    doorman.habits.refuse = {"check": (503, "back soon")}
    assert not (await go_on(device)).ok
    assert device.manager.next_step is not None
    doorman.habits.refuse = {}
    assert (await go_on(device)).ok


async def test_the_way_can_be_given_up_and_another_update_begun(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    publish(fleet, device, ("1.5.0", None), ("1.6.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    await device.update()
    await restart(device)
    assert await device.manager.cancel()
    assert device.manager.next_step is None
    await restart(device)
    assert device.manager.next_step is None
    assert (await device.update(version="1.6.0")).ok


async def test_taking_a_step_back_gives_up_the_way(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    publish(fleet, device, ("1.5.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    await device.update()
    assert await device.manager.cancel()
    await restart(device)
    assert (device.version, device.manager.next_step) == ("1.0.0", None)


async def test_a_bundle_file_is_refused_with_a_sentence_only(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    release = make_release("2.0.0", make_rootfs(2, blocks=240), min_version="1.5.0")
    path = fleet.bundle(release, device.folder / "x.zb")
    last = await device.update(source=str(path))
    assert (last.ok, last.reason) == (False, "min_version")
    assert "install 1.5.0 first" in last.message
    assert doorman.checks == []


async def test_an_older_releases_journal_is_understood(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    """The update to this software begins under the one before it, whose journal knows less."""
    publish(fleet, device, ("1.5.0", None))
    doorman.offer = "1.5.0"
    await device.update()
    path = device.folder / "data" / "journal.json"
    old = json.loads(path.read_text())
    for name in ("then", "steps", "by_itself"):
        del old[name]
    path.write_text(json.dumps(old))
    await restart(device)
    assert device.version == "1.5.0"
    assert await events(device) == [("installed", "1.5.0", None)]


async def test_a_look_does_not_change_the_way(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    publish(fleet, device, ("1.5.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    await device.update()
    await restart(device)
    assert (await device.update(check_only=True)).ok
    doorman.habits.refuse = {"check": (403, "no")}
    assert not (await device.update(check_only=True)).ok
    assert device.manager.next_step is not None


async def test_a_step_that_the_server_does_not_offer_to_this_device(
    device: Device, doorman: Doorman, fleet: Fleet
) -> None:
    """It is published for another board, say: the answer is `nothing for you`."""
    publish(fleet, device, ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    doorman.habits.withheld = {"1.5.0"}
    last = await device.update()
    assert (last.ok, last.reason) == (False, "min_version")
    assert "publish release 1.5.0" in last.message


@pytest.mark.parametrize("taken_back", [False, True])
async def test_a_goal_that_must_not_or_cannot_be_reached_any_more_is_not_asked_for_for_ever(
    device: Device, doorman: Doorman, fleet: Fleet, taken_back: bool
) -> None:
    publish(fleet, device, ("1.5.0", None), ("2.0.0", "1.5.0"))
    doorman.offer = "2.0.0"
    await device.update(by_itself=True)
    await restart(device)
    if taken_back:
        device.manager._ledger.remember(failed_version="2.0.0")
    else:
        doorman.habits.withheld = {"2.0.0"}
    last = await go_on(device)
    assert (last.ok, last.reason) == (False, "not_by_itself" if taken_back else "withdrawn")
    assert device.manager.next_step is None
    assert (await events(device))[-1] == ("failed", "2.0.0", last.reason)
