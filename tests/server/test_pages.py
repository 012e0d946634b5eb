"""The pages: escaped, with security headers, without scripts, and all their forms; health and failures."""

from __future__ import annotations

import html
import re
from pathlib import Path

import aiohttp
import pytest

from tests.server.helpers import PRODUCT, Browser, Dms, ask
from tests.server.making import Publisher


async def test_pages_show_everything_escaped(dms: Dms, fleet: Path) -> None:
    attack = "<script>alert(1)</script>"
    owner = await dms.owner()
    device = await dms.ready_device()
    await owner.api("POST", "bundles", data=Publisher(fleet, PRODUCT).make("1.0.0", notes=attack))
    await owner.api("POST", f"bundles/{PRODUCT}/1.0.0/tag", json={"tag": "release"})
    await owner.api("PATCH", f"devices/{device.uuid}", json={"notes": attack})
    await owner.api("PATCH", f"products/{PRODUCT}", json={"title": attack})
    await device.check("1.0.0", faults=2, slots=[{"slot": attack, "state": "running", "running": True}])
    await device.report("rolled_back", reason=attack[:64], detail=attack, to="1.0.0")
    await dms.core.sightings.flush()
    pages = ["/devices", f"/devices?search={attack}", f"/devices/{device.uuid}", "/products", f"/products/{PRODUCT}"]
    pages += [f"/bundles/{PRODUCT}/1.0.0", "/tokens"]
    async with Browser(dms) as browser:
        await browser.sign_in()
        for page in pages:
            answer = await browser.get(page)
            assert answer.status == 200, page
            assert "<script" not in answer.body, page
        shown = (await browser.get(f"/devices/{device.uuid}")).body
        assert html.escape(attack) in shown
        assert "rolled back" in shown
        assert "1.0.0" in (await browser.get("/devices")).body


async def test_every_answer_has_the_security_headers(dms: Dms) -> None:
    for path in ("/signin", "/nothing", "/static/style.css", "/api/v1/devices", "/devices"):
        headers = (await ask(dms.session, "GET", dms.web_url + path)).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"


async def test_pages_need_nothing_from_elsewhere_and_no_script(dms: Dms) -> None:
    await dms.owner()
    async with Browser(dms) as browser:
        await browser.sign_in()
        for page in ("/devices", "/products", f"/products/{PRODUCT}", "/tokens"):
            body = (await browser.get(page)).body
            assert not re.search(r"(src|href|action)=\"(https?:)?//", body)
            assert not re.search(r"<script|\son\w+=|style=", body)
            assert 'name="viewport"' in body
            assert 'lang="en"' in body


async def test_forms_of_devices_products_and_bundles(dms: Dms, fleet: Path) -> None:
    owner = await dms.person()
    async with Browser(dms) as browser:
        await browser.sign_in()
        assert (await browser.post("/products", "/products", code=PRODUCT, title="Sensor")).status == 303
        device, page = await dms.ready_device(), f"/products/{PRODUCT}"
        one = f"/devices/{device.uuid}"
        assert (await browser.post(one, one, tag="beta", notes="on the roof")).status == 303
        assert "on the roof" in (await browser.get(one)).body
        token_page = (await browser.post(page, f"{page}/claim-token")).body
        assert f"dms claim {PRODUCT} zd_" in token_page
        form = aiohttp.FormData({"csrf": await browser.csrf(page)}, default_to_multipart=True)
        form.add_field("bundle", Publisher(fleet, PRODUCT).make("1.0.0"), filename="x.zb")
        answer = await ask(browser.session, "POST", f"{browser.base}{page}/upload", data=form)
        assert answer.headers["Location"] == f"/bundles/{PRODUCT}/1.0.0"
        bundle = answer.headers["Location"]
        assert (await browser.post(bundle, f"{bundle}/tag", tag="release")).status == 303
        refused = await browser.post(bundle, f"{bundle}/archive")
        assert refused.status == 409
        assert "take the tag off first" in refused.body
        assert (await browser.post(bundle, f"{bundle}/untag", tag="release")).status == 303
        assert (await browser.post(bundle, f"{bundle}/archive")).status == 303
        assert (await browser.post(one, f"{one}/revoke")).status == 303
    assert (await owner.api("GET", f"devices/{device.uuid}")).body["revoked_at"] is not None


async def test_upload_form_with_a_spoiled_bundle_explains_itself(dms: Dms) -> None:
    await dms.owner()
    page = f"/products/{PRODUCT}"
    async with Browser(dms) as browser:
        await browser.sign_in()
        form = aiohttp.FormData({"csrf": await browser.csrf(page)}, default_to_multipart=True)
        form.add_field("bundle", b"nonsense", filename="x.zb")
        answer = await ask(browser.session, "POST", f"{browser.base}{page}/upload", data=form)
    assert answer.status == 422
    assert "bundle file" in answer.body


async def test_list_of_devices_searches_filters_and_pages(dms: Dms) -> None:
    owner = await dms.owner()
    devices = [await dms.ready_device(number) for number in range(3)]
    assert (await owner.api("GET", "devices?limit=2")).body["total"] == 3
    assert len((await owner.api("GET", "devices?limit=2&offset=2")).body["devices"]) == 1
    found = (await owner.api("GET", f"devices?search={devices[1].uuid[:13]}")).body["devices"]
    assert [entry["uuid"] for entry in found] == [devices[1].uuid]
    assert (await owner.api("GET", "devices?search=%25")).body["total"] == 0, "a wildcard is a character here"
    assert (await owner.api("GET", f"devices?product={PRODUCT}")).body["total"] == 3
    for bad in ("limit=x", "offset=-1", "limit=1000", "limit=１"):
        assert (await owner.api("GET", f"devices?{bad}")).status == 400


async def test_health(dms: Dms) -> None:
    assert (await ask(dms.session, "GET", f"{dms.web_url}/healthz")).status == 200
    assert (await ask(dms.session, "GET", f"{dms.web_url}/readyz")).body["timestamp_fresh"] is True


async def test_oversized_json_is_refused(dms: Dms) -> None:
    person = await dms.person()
    answer = await person.api("POST", "products", json={"code": "x" * 100_000, "title": "x"})
    assert answer.status == 413
    assert "65536" in answer.body["message"]


async def test_a_failure_says_nothing_about_the_inside(dms: Dms, monkeypatch: pytest.MonkeyPatch) -> None:
    person = await dms.person()

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(dms.core.products, "summaries", broken)
    answer = await person.api("GET", "products")
    assert answer.status == 500
    assert "secret" not in answer.raw.decode()
    async with Browser(dms) as browser:
        await browser.sign_in()
        answer = await browser.get("/products")
    assert answer.status == 500
    assert "secret" not in answer.body
