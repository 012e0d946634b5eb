"""The web door: sign-up, sessions, CSRF, tokens, object-level checks, pages; and what an attacker gets there."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from sqlalchemy import select, update

from dms_server.accounts.models import ApiToken, User, WebSession
from dms_server.clock import now
from tests.server.conftest import StartDms
from tests.server.helpers import PASSWORD, PRODUCT, Browser, Dms, ask
from tests.server.making import Publisher


# --- accounts -----------------------------------------------------------------------------------------------------------
async def test_sign_up_confirm_sign_in_sign_out(dms: Dms, capsys: pytest.CaptureFixture[str]) -> None:
    async with Browser(dms) as browser:
        answer = await browser.post("/signup", "/signup", name="Ann", email="ann@example.org", password=PASSWORD)
        assert answer.status == 200
        link = re.search(r"/confirm\?token=[A-Za-z0-9_-]+", capsys.readouterr().out)
        assert link is not None
        assert (await browser.sign_in()).status == 303
        assert "Confirm your e-mail" in (await browser.get("/devices")).body
        assert (await browser.post("/products", "/products", code=PRODUCT, title="x")).status == 403
        assert (await browser.get(link[0])).status == 200
        assert (await browser.get(link[0])).status == 404, "a link works once"
        assert "Confirm your e-mail" not in (await browser.get("/devices")).body
        assert (await browser.post("/devices", "/signout")).headers["Location"] == "/signin"
        assert (await browser.get("/devices")).status == 303


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": "a"}, 400),
        ({"name": "<script>"}, 400),
        ({"email": "nobody"}, 400),
        ({"password": "short"}, 400),
        ({"name": "taken"}, 409),
        ({"email": "taken@example.org"}, 409),
    ],
)
async def test_bad_sign_up_is_refused_and_explained(dms: Dms, fields: dict[str, str], status: int) -> None:
    await dms.person("taken")
    form = {"name": "ann", "email": "ann@example.org", "password": PASSWORD} | fields
    async with Browser(dms) as browser:
        answer = await browser.post("/signup", "/signup", **form)
    assert answer.status == status
    assert 'role="alert"' in answer.body
    assert PASSWORD not in answer.body


async def test_sign_up_can_be_closed(start_dms: StartDms) -> None:
    dms = await start_dms(signup_open=False)
    async with Browser(dms) as browser:
        answer = await browser.post("/signup", "/signup", name="ann", email="ann@example.org", password=PASSWORD)
    assert answer.status == 403


async def test_wrong_password_does_not_sign_in(dms: Dms) -> None:
    await dms.person()
    async with Browser(dms) as browser:
        assert (await browser.sign_in(password="wrong")).status == 403
        assert (await browser.get("/devices")).headers["Location"] == "/signin?next=/devices"


async def test_guessing_on_the_web_is_stopped(start_dms: StartDms) -> None:
    dms = await start_dms(guess_limit=3)
    await dms.person()
    async with Browser(dms) as browser:
        for _ in range(3):
            assert (await browser.sign_in(password="wrong")).status == 403
        assert (await browser.sign_in()).status == 429


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x"])
async def test_sign_in_leads_nowhere_else(dms: Dms, target: str) -> None:
    await dms.person()
    async with Browser(dms) as browser:
        answer = await browser.post("/signin", "/signin", name="ann", password=PASSWORD, next=target)
    assert answer.headers["Location"] == "/"


async def test_secrets_are_stored_as_hashes(dms: Dms) -> None:
    person = await dms.person()
    async with Browser(dms) as browser:
        await browser.sign_in()
        cookie = next(c.value for c in browser.session.cookie_jar if c.key == "zentri_session")
    async with dms.core.db.read() as session:
        stored = [
            *await session.scalars(select(User.password_hash)),
            *await session.scalars(select(ApiToken.token_hash)),
            *await session.scalars(select(WebSession.token_hash)),
        ]
    assert stored[0].startswith("$argon2id$")
    assert not any(secret in text for text in stored for secret in (PASSWORD, person.token, cookie))


async def test_session_cookie_is_out_of_reach(start_dms: StartDms) -> None:
    dms = await start_dms(public_url="https://dms.example")
    await dms.person()
    headers = {"X-CSRF-Token": ""}
    page = await ask(dms.session, "GET", f"{dms.web_url}/api/v1/csrf")
    visitor = page.headers["Set-Cookie"].split(";")[0]
    headers = {"X-CSRF-Token": page.body["csrf"], "Cookie": visitor}
    answer = await ask(
        dms.session,
        "POST",
        f"{dms.web_url}/api/v1/sessions",
        json={"name": "ann", "password": PASSWORD},
        headers=headers,
    )
    assert answer.status == 201
    for part in ("HttpOnly", "Secure", "SameSite=Lax"):
        assert part in answer.headers["Set-Cookie"]


async def test_expired_session_and_disabled_account_are_nobody(dms: Dms) -> None:
    person = await dms.person()
    async with Browser(dms) as browser:
        await browser.sign_in()
        async with dms.core.db.write() as session:
            await session.change(update(WebSession).values(expires_at=now()))
        assert (await browser.get("/devices")).status == 303
        await browser.sign_in()
        assert (await browser.get("/devices")).status == 200
        async with dms.core.db.write() as session:
            await session.change(update(User).values(disabled_at=now()))
        assert (await browser.get("/devices")).status == 303
    assert (await person.api("GET", "devices")).status == 401


# --- CSRF ---------------------------------------------------------------------------------------------------------------
async def test_forms_without_the_right_csrf_field_are_refused(dms: Dms) -> None:
    await dms.owner()
    async with Browser(dms) as browser, Browser(dms) as other:
        await browser.sign_in()
        foreign = await other.csrf("/signin")
        for csrf in ("", "0" * 64, foreign, "é"):
            answer = await ask(
                browser.session,
                "POST",
                f"{browser.base}/products",
                data={"csrf": csrf, "code": "EVIL-VIRT_SENSOR", "title": "x"},
            )
            assert answer.status == 403
        assert "EVIL" not in (await browser.get("/products")).body


async def test_every_changing_page_wants_the_csrf_field(dms: Dms, fleet: Path) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    await owner.api("POST", "bundles", data=Publisher(fleet, PRODUCT).make("1.0.0"))
    one = f"/devices/{device.uuid}"
    bundle = f"/bundles/{PRODUCT}/1.0.0"
    paths = ["/signup", "/signin", "/signout", "/tokens", "/tokens/1/revoke", one, f"{one}/release", f"{one}/revoke"]
    paths += [f"{one}/transfer", "/products", f"/products/{PRODUCT}", f"/products/{PRODUCT}/claim-token"]
    paths += [f"/products/{PRODUCT}/upload", *(f"{bundle}/{what}" for what in ("tag", "untag", "publish", "archive"))]
    async with Browser(dms) as browser:
        await browser.sign_in()
        for path in paths:
            for data in ({"x": "y"}, None):
                form: Any = aiohttp.FormData(data) if data else aiohttp.FormData({"x": "y"}, default_to_multipart=True)
                answer = await ask(browser.session, "POST", browser.base + path, data=form)
                assert answer.status == 403, path
        assert (await browser.get(one)).status == 200


async def test_requests_from_another_site_are_refused(dms: Dms) -> None:
    await dms.owner()
    async with Browser(dms) as browser:
        await browser.sign_in()
        form = {"csrf": await browser.csrf("/products"), "code": "DEMO-VIRT_X1", "title": "x"}
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert (
            await ask(browser.session, "POST", browser.base + "/products", data=form, headers=headers)
        ).status == 403


async def test_api_with_a_session_wants_the_csrf_header(dms: Dms) -> None:
    await dms.person()
    async with Browser(dms) as browser:
        await browser.sign_in()
        url, body = f"{browser.base}/api/v1/products", {"code": PRODUCT, "title": "x"}
        assert (await ask(browser.session, "POST", url, json=body)).status == 403
        csrf = (await browser.get("/api/v1/csrf")).body["csrf"]
        assert (await ask(browser.session, "POST", url, json=body, headers={"X-CSRF-Token": csrf})).status == 201
        assert (await ask(browser.session, "POST", url, data={"csrf": csrf})).status == 403, "no forms to the API"


# --- tokens -------------------------------------------------------------------------------------------------------------
async def test_tokens_have_scopes_and_can_be_revoked(dms: Dms) -> None:
    await dms.owner()
    async with Browser(dms) as browser:
        await browser.sign_in()
        page = (await browser.post("/tokens", "/tokens", name="ci", scope="read")).body
        token = html.unescape(re.search(r"<pre>(zt_[^<]+)</pre>", page)[1])  # type: ignore[index]
        assert token not in (await browser.get("/tokens")).body, "shown once"
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{dms.web_url}/api/v1/products"
        assert (await ask(dms.session, "GET", url, headers=headers)).status == 200
        refused = await ask(dms.session, "POST", url, headers=headers, json={"code": "DEMO-VIRT_X1", "title": "x"})
        assert (refused.status, refused.body["title"]) == (403, "forbidden")
        assert (await ask(dms.session, "GET", f"{dms.web_url}/api/v1/tokens", headers=headers)).status == 403
        key = re.findall(r"/tokens/(\d+)/revoke", (await browser.get("/tokens")).body)[0]
        assert (await browser.post("/tokens", f"/tokens/{key}/revoke")).status == 303
        assert (await ask(dms.session, "GET", url, headers=headers)).status == 401


@pytest.mark.parametrize("value", ["Bearer wrong", "Bearer", "Basic YTpi", "Bearer " + "x" * 5000])
async def test_bad_token_is_refused(dms: Dms, value: str) -> None:
    answer = await ask(dms.session, "GET", f"{dms.web_url}/api/v1/devices", headers={"Authorization": value})
    assert answer.status == 401
    assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_expired_token_is_refused(dms: Dms) -> None:
    person = await dms.person()
    async with dms.core.db.write() as session:
        await session.change(update(ApiToken).values(expires_at=now()))
    assert (await person.api("GET", "devices")).status == 401


async def test_nobody_gets_nothing_from_the_api(dms: Dms) -> None:
    for path in ("account", "devices", "products", "tokens", f"bundles/{PRODUCT}", f"devices/{uuid4()}"):
        assert (await ask(dms.session, "GET", f"{dms.web_url}/api/v1/{path}")).status == 401


# --- objects of others --------------------------------------------------------------------------------------------------
async def test_another_persons_things_are_404_on_every_route(dms: Dms, fleet: Path) -> None:
    owner, eve = await dms.owner(), await dms.owner("eve", "EVIL-VIRT_SENSOR")
    device = await dms.ready_device()
    await owner.api("POST", "bundles", data=Publisher(fleet, PRODUCT).make("1.0.0"))
    bundle = f"bundles/{PRODUCT}/1.0.0"
    routes: list[tuple[str, str, dict[str, str]]] = [
        ("GET", f"devices/{device.uuid}", {}),
        ("GET", f"devices/{device.uuid}/reports", {}),
        ("PATCH", f"devices/{device.uuid}", {"tag": "alpha"}),
        ("POST", f"devices/{device.uuid}/release", {}),
        ("POST", f"devices/{device.uuid}/revoke", {}),
        ("POST", f"devices/{device.uuid}/transfer", {"user": "eve"}),
        ("GET", f"products/{PRODUCT}", {}),
        ("PATCH", f"products/{PRODUCT}", {"title": "mine"}),
        ("POST", f"products/{PRODUCT}/claim-tokens", {}),
        ("GET", f"bundles/{PRODUCT}", {}),
        ("GET", bundle, {}),
        ("POST", f"{bundle}/tag", {"tag": "release"}),
        ("DELETE", f"{bundle}/tag/release", {}),
        ("POST", f"{bundle}/publish", {}),
        ("POST", f"{bundle}/archive", {}),
        ("DELETE", "tokens/1", {}),
    ]
    for method, path, body in routes:
        answer = await eve.api(method, path, json=body)
        assert answer.status == (403 if path.startswith("tokens") else 404), path
    assert (await eve.api("GET", "devices")).body["devices"] == []
    assert (await eve.api("GET", f"devices?search={device.uuid[:8]}")).body["total"] == 0
    assert [p["code"] for p in (await eve.api("GET", "products")).body["products"]] == ["EVIL-VIRT_SENSOR"]
    async with Browser(dms) as browser:
        await browser.sign_in("eve")
        for page in (f"/devices/{device.uuid}", f"/products/{PRODUCT}", f"/{bundle}"):
            assert (await browser.get(page)).status == 404
        for form in (f"/devices/{device.uuid}/revoke", f"/products/{PRODUCT}", f"/{bundle}/archive"):
            answer = await browser.post("/products", form, title="x", state="archived")
            assert answer.status == 404
        assert (await browser.post("/tokens", "/tokens/1/revoke")).status == 404
    assert (await device.get("status")).body["owner"] == "ann"
    assert (await owner.api("GET", bundle)).body["state"] == "published"


async def test_product_codes(dms: Dms) -> None:
    owner, eve = await dms.owner(), await dms.person("eve")
    assert (await owner.api("POST", "products", json={"code": PRODUCT, "title": "x"})).status == 409
    assert (await eve.api("POST", "products", json={"code": "DEMO-VIRT_MINE", "title": "x"})).status == 403
    for code in ("DEMO", "demo virt", "../../etc/passwd", "A-B_C", "X" * 60):
        assert (await owner.api("POST", "products", json={"code": code, "title": "x"})).status == 400
    await owner.api("PATCH", f"products/{PRODUCT}", json={"state": "published"})
    assert (await owner.api("PATCH", f"products/{PRODUCT}", json={"state": "preview"})).status == 409
