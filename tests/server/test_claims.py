"""Claiming and activating: who proves what, who wins, and what the console prints."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import update

from dms_server.clock import now
from dms_server.products.models import ClaimToken
from tests.server.conftest import StartDms
from tests.server.helpers import PASSWORD, PRODUCT, Dms, Person, ask


async def claim_token(person: Person, product: str = PRODUCT) -> str:
    """Make a one-time claim token."""
    return str((await person.api("POST", f"products/{product}/claim-tokens")).body["token"])


async def test_unclaimed_device_is_told_so_in_these_very_bytes(dms: Dms) -> None:
    answer = await dms.device().check()
    assert answer.status == 403
    assert answer.raw == b'{"result":"fail","message":"device not claimed"}'


async def test_claim_and_activate(dms: Dms) -> None:
    owner, device = await dms.owner(), dms.device()
    answer = await device.post("claim", user="Ann", password=PASSWORD)
    assert (answer.status, answer.body) == (200, {"result": "ok", "message": "device claimed by ann"})
    assert (await device.post("activate", product=PRODUCT)).status == 200
    status = (await device.get(f"status?uuid={device.uuid}")).body
    assert status.pop("time").endswith("Z")
    assert status == {"claimed": True, "owner": "ann", "product": PRODUCT, "tag": "release", "commands": []}
    assert (await owner.api("GET", f"devices/{device.uuid}")).body["product"] == PRODUCT


async def test_status_before_the_claim(dms: Dms) -> None:
    device = dms.device()
    status = (await device.get(f"status?uuid={device.uuid}")).body
    assert (status["claimed"], status["owner"], status["product"]) == (False, None, None)


@pytest.mark.parametrize(("user", "password"), [("ann", "wrong password"), ("nobody", PASSWORD), ("", "")])
async def test_wrong_password_and_unknown_name_look_the_same(dms: Dms, user: str, password: str) -> None:
    await dms.owner()
    answer = await dms.device().post("claim", user=user, password=password)
    assert answer.status == 403
    assert answer.body == {"result": "fail", "message": "wrong user name or password"}
    assert not (await dms.device().get("status")).body["claimed"]


async def test_guessing_is_stopped_for_the_device_that_guesses_only(start_dms: StartDms) -> None:
    dms = await start_dms(guess_limit=3)
    await dms.owner()
    for _ in range(3):
        assert (await dms.device(0).post("claim", user="ann", password="wrong")).status == 403
    answer = await dms.device(0).post("claim", user="ann", password=PASSWORD)
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert (await dms.device(1).post("claim", user="ann", password=PASSWORD)).status == 200


async def test_guessing_many_at_once_is_stopped_too(start_dms: StartDms) -> None:
    dms = await start_dms(guess_limit=3)
    await dms.owner()
    device = dms.device()
    guesses = (device.post("claim", user="ann", password=f"wrong {number}") for number in range(12))
    assert sorted(answer.status for answer in await asyncio.gather(*guesses)) == [403] * 3 + [429] * 9


async def test_right_passwords_are_not_counted_as_guesses(start_dms: StartDms) -> None:
    dms = await start_dms(guess_limit=3)
    await dms.owner()
    for _ in range(5):
        assert (await dms.device().post("claim", user="ann", password=PASSWORD)).status == 200


async def test_guessing_is_slowed(start_dms: StartDms) -> None:
    dms = await start_dms(guess_delay_s=0.1)
    await dms.owner()
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(3):
        await dms.device().post("claim", user="ann", password="wrong")
    assert loop.time() - started >= 0.1 + 0.2 + 0.4


async def test_claiming_again_by_the_owner_is_no_error(dms: Dms) -> None:
    await dms.owner()
    for _ in range(2):
        assert (await dms.device().post("claim", user="ann", password=PASSWORD)).status == 200


async def test_claim_of_a_claimed_device_is_refused(dms: Dms) -> None:
    await dms.owner()
    await dms.person("eve")
    device = await dms.ready_device()
    answer = await device.post("claim", user="eve", password=PASSWORD)
    assert answer.status == 403
    assert "claimed by another account" in answer.body["message"]
    assert "ann" not in answer.body["message"]
    assert (await device.get("status")).body["owner"] == "ann"


async def test_of_two_claims_at_once_exactly_one_wins(dms: Dms) -> None:
    names = [f"user{number}" for number in range(6)]
    for name in names:
        await dms.person(name)
    device = dms.device()
    answers = await asyncio.gather(*(device.post("claim", user=name, password=PASSWORD) for name in names))
    assert sorted(answer.status for answer in answers) == [200] + [403] * 5
    winner = names[[answer.status for answer in answers].index(200)]
    assert (await device.get("status")).body["owner"] == winner


async def test_claim_by_an_unconfirmed_account_is_refused(dms: Dms) -> None:
    await dms.core.accounts.sign_up("new", "new@example.org", PASSWORD)
    answer = await dms.device().post("claim", user="new", password=PASSWORD)
    assert answer.status == 403
    assert "not confirmed" in answer.body["message"]


async def test_claim_with_a_token_also_activates(dms: Dms) -> None:
    token = await claim_token(await dms.owner())
    answer = await dms.device().post("claim", product=PRODUCT, token=token)
    assert answer.status == 200
    status = (await dms.device().get("status")).body
    assert (status["owner"], status["product"]) == ("ann", PRODUCT)


async def test_a_token_claims_one_device(dms: Dms) -> None:
    token = await claim_token(await dms.owner())
    first, second = dms.device(0), dms.device(1)
    assert (await first.post("claim", product=PRODUCT, token=token)).status == 200
    assert (await first.post("claim", product=PRODUCT, token=token)).status == 200, "the answer may have been lost"
    assert (await second.post("claim", product=PRODUCT, token=token)).status == 403
    assert not (await second.get("status")).body["claimed"]


async def test_of_two_devices_with_one_token_at_once_exactly_one_wins(dms: Dms) -> None:
    token = await claim_token(await dms.owner())
    devices = [dms.device(number) for number in range(3)]
    answers = await asyncio.gather(*(device.post("claim", product=PRODUCT, token=token) for device in devices))
    assert sorted(answer.status for answer in answers) == [200, 403, 403]


async def test_wrong_token_wrong_product_and_expired_token_are_refused(dms: Dms) -> None:
    owner = await dms.owner()
    await dms.core.products.create(owner.id, "DEMO-VIRT_OTHER", "Other")
    token, device = await claim_token(owner), dms.device()
    assert (await device.post("claim", product=PRODUCT, token=token + "x")).status == 403
    assert (await device.post("claim", product="DEMO-VIRT_OTHER", token=token)).status == 403
    async with dms.core.db.write() as session:
        await session.change(update(ClaimToken).values(expires_at=now() - timedelta(seconds=1)))
    assert (await device.post("claim", product=PRODUCT, token=token)).status == 403
    assert not (await device.get("status")).body["claimed"]


async def test_claim_token_of_another_owner_does_not_take_a_claimed_device(dms: Dms) -> None:
    await dms.owner("ann")
    eve = await dms.owner("eve", "EVIL-VIRT_SENSOR")
    device = await dms.ready_device()
    token = await claim_token(eve, "EVIL-VIRT_SENSOR")
    assert (await device.post("claim", product="EVIL-VIRT_SENSOR", token=token)).status == 403
    assert (await device.get("status")).body["owner"] == "ann"
    # The token was not used up by the refused claim.
    assert (await dms.device(1).post("claim", product="EVIL-VIRT_SENSOR", token=token)).status == 200


async def test_claim_without_credentials_is_a_bad_request(dms: Dms) -> None:
    answer = await dms.device().post("claim", user="ann")
    assert answer.status == 400
    assert "user and password, or product and token" in answer.body["message"]


async def test_activate_needs_a_claim(dms: Dms) -> None:
    await dms.owner()
    answer = await dms.device().post("activate", product=PRODUCT)
    assert (answer.status, answer.body["message"]) == (403, "device not claimed")


async def test_activate_of_a_product_of_another_owner_or_none_is_404(dms: Dms) -> None:
    await dms.owner("ann")
    await dms.owner("eve", "EVIL-VIRT_SENSOR")
    device = await dms.ready_device()
    for code in ("EVIL-VIRT_SENSOR", "DEMO-VIRT_NOTHERE", "", "x" * 60):
        assert (await device.post("activate", product=code)).status == 404
    assert (await device.get("status")).body["product"] == PRODUCT


async def test_a_production_product_is_never_exchanged(dms: Dms) -> None:
    owner = await dms.owner()
    await dms.core.products.create(owner.id, "DEMO-VIRT_OTHER", "Other")
    device = await dms.ready_device()
    assert (await device.post("activate", product="DEMO-VIRT_OTHER")).status == 200, "a preview may be exchanged"
    assert (await device.post("activate", product=PRODUCT)).status == 200
    await owner.api("PATCH", f"products/{PRODUCT}", json={"state": "published"})
    answer = await device.post("activate", product="DEMO-VIRT_OTHER")
    assert answer.status == 403
    assert "never exchanged" in answer.body["message"]
    assert (await device.post("activate", product=PRODUCT)).status == 200
    assert (await device.get("status")).body["product"] == PRODUCT


async def test_transfer_and_release_are_by_the_owner_only(dms: Dms) -> None:
    owner, eve = await dms.owner(), await dms.person("eve")
    device = await dms.ready_device()
    for what, body in (("transfer", {"user": "eve"}), ("release", {}), ("revoke", {})):
        assert (await eve.api("POST", f"devices/{device.uuid}/{what}", json=body)).status == 404
    assert (await owner.api("POST", f"devices/{device.uuid}/transfer", json={"user": "eve"})).status == 200
    assert (await device.get("status")).body["owner"] == "eve"
    assert (await owner.api("GET", f"devices/{device.uuid}")).status == 404
    assert (await eve.api("POST", f"devices/{device.uuid}/release")).status == 200
    assert (await device.check()).body["message"] == "device not claimed"
    assert (await device.post("claim", user="ann", password=PASSWORD)).status == 200


async def test_revoked_device_is_refused_everywhere(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    assert (await owner.api("POST", f"devices/{device.uuid}/revoke")).status == 200
    answers = [
        await device.check(),
        await device.get("status"),
        await device.get("metadata/timestamp.json"),
        await device.report("boot"),
        await device.post("claim", user="ann", password=PASSWORD),
    ]
    for answer in answers:
        assert answer.status == 403
        assert "revoked" in answer.body["message"]
    assert (await owner.api("GET", f"devices/{device.uuid}/reports")).body["reports"] == []


async def test_another_devices_uuid_is_refused_wherever_it_is_sent(dms: Dms) -> None:
    await dms.owner()
    await dms.ready_device(0)
    thief, victim = await dms.ready_device(1), dms.device(0)
    answers = [
        await ask(
            dms.session,
            "POST",
            f"{dms.device_url}/device/v1/check",
            json={"uuid": victim.uuid, "version": "1.0.0"},
            ssl=thief.tls,
        ),
        await thief.get(f"status?uuid={victim.uuid}"),
        await thief.get("status", headers={"X-Zentri-UUID": victim.uuid}),
    ]
    for answer in answers:
        assert answer.status == 403
        assert "not the one in the certificate" in answer.body["message"]
    same = await thief.get(f"status?uuid={thief.uuid.upper()}", headers={"X-Zentri-UUID": thief.uuid})
    assert same.status == 200
