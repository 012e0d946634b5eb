"""A factory reset from afar: asked by the owner alone, confirmed, answered once, never done late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from dms_server.clock import now
from dms_server.commands.models import DeviceCommand
from tests.server.helpers import Browser, Device, Dms, Person, ask


async def reset(owner: Person, device: Device, settings_only: Any = False, confirm: str | None = None) -> Any:
    body = {"settings_only": settings_only, "confirm": device.uuid[-6:] if confirm is None else confirm}
    return await owner.api("POST", f"devices/{device.uuid}/factory-reset", json=body)


async def waiting(device: Device) -> Any:
    return (await device.get("status")).body["commands"]


async def states(owner: Person, device: Device) -> list[str]:
    return [
        command["state"] for command in (await owner.api("GET", f"devices/{device.uuid}/commands")).body["commands"]
    ]


async def answer(device: Device, command_id: str, reason: str = "accepted", **more: Any) -> Any:
    return await device.report("command", id=command_id, reason=reason, **more)


@pytest.fixture
async def owner(dms: Dms) -> Person:
    return await dms.owner()


@pytest.fixture
async def device(dms: Dms, owner: Person) -> Device:
    return await dms.ready_device()


async def test_the_whole_way(owner: Person, device: Device) -> None:
    assert await waiting(device) == []
    asked = await reset(owner, device, settings_only=True)
    assert (asked.status, asked.body["state"]) == (201, "waiting")
    [command] = await waiting(device)
    assert command == {"id": asked.body["id"], "command": "factory_reset", "settings_only": True}
    assert await waiting(device) == [command], "fetching is not answering"
    assert (await answer(device, command["id"], detail="on <my> way\x1b")).status == 200
    assert await waiting(device) == []
    [shown] = (await owner.api("GET", f"devices/{device.uuid}/commands")).body["commands"]
    assert (shown["state"], shown["detail"]) == ("accepted", "on <my> way?")
    assert shown["answered_at"] is not None
    assert (await owner.api("GET", f"devices/{device.uuid}/reports")).body["reports"] == []


async def test_an_answer_may_be_repeated_but_not_changed(owner: Person, device: Device) -> None:
    command = (await reset(owner, device)).body["id"]
    assert (await answer(device, command, "refused", detail="not allowed here")).body["message"] == "report kept"
    assert (await answer(device, command, "refused")).body["message"] == "report was here before"
    assert (await answer(device, command, "accepted")).status == 409
    assert await states(owner, device) == ["refused"]


@pytest.mark.parametrize("confirm", ["", "000000", "abc", "{uuid}x", "{first}"])
async def test_a_wrong_confirmation_asks_nothing(owner: Person, device: Device, confirm: str) -> None:
    wrong = confirm.format(uuid=device.uuid, first=device.uuid[:6])
    assert (await reset(owner, device, confirm=wrong)).status == 400
    assert await waiting(device) == []


@pytest.mark.parametrize("body", [{}, {"confirm": "x"}, {"settings_only": "no", "confirm": "x"}, {"settings_only": 1}])
async def test_a_body_that_is_not_whole_asks_nothing(owner: Person, device: Device, body: Any) -> None:
    assert (await owner.api("POST", f"devices/{device.uuid}/factory-reset", json=body)).status == 400
    assert await waiting(device) == []


async def test_the_whole_uuid_confirms_too(owner: Person, device: Device) -> None:
    assert (await reset(owner, device, confirm=f" {device.uuid.upper()} ")).status == 201


async def test_asking_again_gives_the_same_command(owner: Person, device: Device) -> None:
    first = await reset(owner, device)
    again = await reset(owner, device)
    assert (again.status, again.body["id"]) == (200, first.body["id"])
    other = await reset(owner, device, settings_only=True)
    assert other.status == 409
    assert "withdraw" in other.body["message"]
    await answer(device, first.body["id"])
    assert (await reset(owner, device)).status == 201
    assert await states(owner, device) == ["waiting", "accepted"]


async def test_only_the_owner_may(dms: Dms, owner: Person, device: Device) -> None:
    eve = await dms.person("eve")
    command = (await reset(owner, device)).body["id"]
    one = f"devices/{device.uuid}"
    assert (await reset(eve, device)).status == 404
    assert (await eve.api("GET", f"{one}/commands")).status == 404
    assert (await eve.api("DELETE", f"{one}/commands/{command}")).status == 404
    reads = await dms.person("reader", scopes=("read",))
    assert (await reset(reads, device)).status == 403
    url = f"{dms.web_url}/api/v1/{one}"
    assert (await ask(dms.session, "GET", f"{url}/commands")).status == 401
    for method, path in (("POST", "factory-reset"), ("DELETE", f"commands/{command}")):
        assert (await ask(dms.session, method, f"{url}/{path}", json={})).status in (401, 403)
    assert await states(owner, device) == ["waiting"]


async def test_another_device_cannot_answer(dms: Dms, owner: Person, device: Device) -> None:
    command = (await reset(owner, device)).body["id"]
    other = await dms.ready_device(1)
    assert await waiting(other) == []
    assert (await answer(other, command)).status == 404
    assert (await answer(device, str(uuid4()))).status == 404
    assert (await answer(device, command, "done")).status == 400
    assert (await device.report("command", id=command)).status == 400
    assert await states(owner, device) == ["waiting"]


async def test_withdrawn_in_time(owner: Person, device: Device) -> None:
    command = (await reset(owner, device)).body["id"]
    one = f"devices/{device.uuid}/commands/{command}"
    for _ in range(2):
        assert (await owner.api("DELETE", one)).body["state"] == "withdrawn"
    assert await waiting(device) == []
    assert (await answer(device, command)).status == 409, "the device must not act"
    assert (await owner.api("DELETE", f"devices/{device.uuid}/commands/{uuid4()}")).status == 404
    second = (await reset(owner, device)).body["id"]
    await answer(device, second)
    assert (await owner.api("DELETE", f"devices/{device.uuid}/commands/{second}")).status == 409


async def test_it_expires_after_a_week(dms: Dms, owner: Person, device: Device) -> None:
    command = (await reset(owner, device)).body["id"]

    async def age(days: float) -> None:
        async with dms.core.db.write() as session:
            await session.change(update(DeviceCommand).values(requested_at=now() - timedelta(days=days)))

    await age(6.99)
    assert len(await waiting(device)) == 1
    await age(7.01)
    assert await waiting(device) == []
    assert await states(owner, device) == ["expired"]
    assert (await answer(device, command)).status == 409
    assert (await owner.api("DELETE", f"devices/{device.uuid}/commands/{command}")).status == 409
    assert (await reset(owner, device)).status == 201


@pytest.mark.parametrize("how", ["release", "transfer", "revoke"])
async def test_changing_hands_takes_it_back(dms: Dms, owner: Person, device: Device, how: str) -> None:
    eve = await dms.person("eve")
    command = (await reset(owner, device)).body["id"]
    assert (await owner.api("POST", f"devices/{device.uuid}/{how}", json={"user": "eve"})).status == 200
    if how == "revoke":
        assert (await device.get("status")).status == 403
        assert await states(owner, device) == ["withdrawn"]
        assert (await reset(owner, device)).status == 409
        return
    assert await waiting(device) == []
    assert (await answer(device, command)).status in (404, 409)
    if how == "transfer":
        assert await states(eve, device) == [], "what the owner before asked for is not told"
    else:
        assert (await reset(owner, device)).status == 404
        await device.post("claim", user="ann", password="correct horse battery")
        assert await waiting(device) == []
        assert await states(owner, device) == ["withdrawn"]


async def test_a_stranger_takes_nothing_back(dms: Dms, owner: Person, device: Device) -> None:
    eve = await dms.person("eve")
    await reset(owner, device)
    for how in ("release", "transfer", "revoke"):
        assert (await eve.api("POST", f"devices/{device.uuid}/{how}", json={"user": "eve"})).status == 404
    assert len(await waiting(device)) == 1


async def test_only_so_many_are_kept(owner: Person, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dms_server.commands.services.KEPT", 2)
    for _ in range(4):
        await answer(device, (await reset(owner, device)).body["id"])
    assert await states(owner, device) == ["accepted", "accepted"]


async def test_the_page(dms: Dms, owner: Person, device: Device) -> None:
    page = f"/devices/{device.uuid}"
    attack = "<script>alert(1)</script>"
    async with Browser(dms) as browser:
        await browser.sign_in()
        assert 'name="confirm"' in (await browser.get(page)).body
        wrong = await browser.post(page, f"{page}/factory-reset", confirm="000000")
        assert wrong.status == 400
        assert "To confirm, give the UUID" in wrong.body
        forged = await ask(
            browser.session, "POST", f"{browser.base}{page}/factory-reset", data={"confirm": device.uuid[-6:]}
        )
        assert forged.status == 403
        assert await waiting(device) == []
        asked = await browser.post(page, f"{page}/factory-reset", confirm=device.uuid[-6:], settings_only="1")
        assert asked.status == 303
        [command] = await waiting(device)
        assert command["settings_only"] is True
        body = (await browser.get(page)).body
        assert 'name="confirm"' not in body
        assert "the device has not answered yet" in body
        assert (await browser.post(page, f"{page}/commands/{command['id']}/withdraw")).status == 303
        assert "taken back in time" in (await browser.get(page)).body
        await browser.post(page, f"{page}/factory-reset", confirm=device.uuid[-6:])
        [command] = await waiting(device)
        assert command["settings_only"] is False
        await answer(device, command["id"], "refused", detail=attack)
        body = (await browser.get(page)).body
        assert "<script" not in body
        assert "&lt;script&gt;" in body
        gone = await browser.post(page, f"{page}/commands/{command['id']}/withdraw")
        assert gone.status == 409
