"""The pages: escaped, with security headers, without scripts, usable by all, their forms; health and failures."""

from __future__ import annotations

import html
import re
from collections import Counter
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import update

from dms_server.clock import now
from dms_server.devices.models import Device as DeviceRow
from tests.server.helpers import PASSWORD, PRODUCT, Browser, Dms, ask
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
    assert 'role="alert">Bundle file: ' in answer.body


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


class Outline(HTMLParser):
    """What a screen reader goes by: landmarks, headings, names of fields and buttons, table heads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.headings: list[int] = []
        self.unnamed: list[str] = []
        self.tables: list[set[str]] = []
        self._labels = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.count[tag] += 1
        if tag == "label":
            self._labels += 1
        elif tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            if not self._labels and not given.get("aria-label"):
                self.unnamed.append(self.get_starttag_text() or tag)
        elif (tag == "nav" and not given.get("aria-label")) or (tag == "img" and "alt" not in given):
            self.unnamed.append(tag)
        elif re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        elif tag == "table":
            self.tables.append(set())
        if self.tables and tag in ("caption", "th"):
            self.tables[-1].add(f"th {given.get('scope')}" if tag == "th" else tag)

    def handle_endtag(self, tag: str) -> None:
        self._labels -= tag == "label"


def check_outline(page: str, name: str) -> None:
    """Fail unless a page can be found one's way in without seeing it."""
    outline = Outline(page)
    assert outline.headings[0] == 1, name
    assert outline.headings.count(1) == 1, name
    assert set(outline.headings) <= {1, 2}, name
    assert outline.count["header"] == outline.count["main"] == 1, name
    assert outline.unnamed == [], name
    assert all(table == {"caption", "th col", "th row"} for table in outline.tables), name
    assert page.count('href="#main"') == 1, name


def test_the_outline_check_finds_what_is_missing() -> None:
    page = '<a href="#main"></a><header></header><main id="main"><h1>x</h1>{}</main>'
    check_outline(page.format("<label>x <input></label>"), "good")
    for bad in ("<h1>y</h1>", "<h4>y</h4>", "<label>x</label><input>", "<nav></nav>", "<table></table>", "<img>"):
        with pytest.raises(AssertionError):
            check_outline(page.format(bad), bad)


async def test_every_page_can_be_used_without_seeing_it(dms: Dms, fleet: Path) -> None:
    async with Browser(dms) as browser:
        for name in ("/signin", "/signup", "/nothing"):
            check_outline((await browser.get(name)).body, name)
        owner = await dms.person()
        await browser.sign_in()
        empty = ("/devices", "/products", "/tokens", "/nothing")
        for name in empty:
            check_outline((await browser.get(name)).body, name)
        await owner.api("POST", "products", json={"code": PRODUCT, "title": "Sensor"})
        device = await dms.ready_device()
        bare = f"/devices/{device.uuid}"
        check_outline((await browser.get(bare)).body, "a device that never checked")
        check_outline((await browser.get(f"/products/{PRODUCT}")).body, "a product without bundles")
        await owner.api("POST", "bundles", data=Publisher(fleet, PRODUCT).make("1.0.0", notes="x"))
        await device.check("1.0.0", faults=2, slots=[{"slot": "a", "version": "1.0.0", "state": "running"}])
        await device.report("rolled_back", reason="unhealthy", detail="x", to="1.1.0")
        await dms.core.sightings.flush()
        pages = (*empty, bare, "/devices?search=nothing", f"/products/{PRODUCT}", f"/bundles/{PRODUCT}/1.0.0")
        for name in pages:
            check_outline((await browser.get(name)).body, name)
        refused = await browser.post("/products", "/products", code=PRODUCT, title="again")
        check_outline(refused.body, "a refused form")
        assert 'role="alert"' in refused.body
        assert "<title>Error:" in refused.body


async def test_device_page_shows_at_a_glance_how_the_device_is(dms: Dms, fleet: Path) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    publisher = Publisher(fleet, PRODUCT)
    for version, tag in (("1.0.0", "beta"), ("1.1.0", "release")):
        await owner.api("POST", "bundles", data=publisher.make(version))
        await owner.api("POST", f"bundles/{PRODUCT}/{version}/tag", json={"tag": tag})
    slots = [{"slot": "a", "version": "1.0.0", "state": "running"}, {"slot": "b", "version": "1.1.0", "state": "bad"}]
    await device.check("1.0.0", slots=slots)
    await device.report("rolled_back", reason="did_not_start", detail="never healthy", version="1.0.0", to="1.1.0")
    await dms.core.sightings.flush()
    async with Browser(dms) as browser:
        await browser.sign_in()
        page = (await browser.get(f"/devices/{device.uuid}")).body
        assert "<dt>Running</dt><dd>1.0.0</dd>" in page
        assert "<dt>Should run</dt><dd>1.1.0</dd><dd>tried and rolled back</dd>" in page
        assert "Rolled back: did not start</h2>" in page
        assert page.index("Never healthy") < page.index(">Slots</h2>") < page.index(">History</h2>")
        assert "</span>online" in page
        await owner.api("PATCH", f"devices/{device.uuid}", json={"tag": "beta"})
        page = (await browser.get(f"/devices/{device.uuid}")).body
        assert "<dt>Should run</dt><dd>1.0.0</dd><dd>up to date</dd>" in page
        async with dms.core.db.write() as session:
            await session.change(update(DeviceRow).values(last_seen_at=now() - timedelta(days=40)))
        page = (await browser.get(f"/devices/{device.uuid}")).body
        assert "</span>offline" in page
        assert f">{(now() - timedelta(days=40)).strftime('%Y-%m-%d')}</time>" in page


async def test_empty_pages_tell_what_to_do_next(dms: Dms) -> None:
    owner = await dms.person()
    async with Browser(dms) as browser:
        await browser.sign_in()
        assert "dms claim ann &lt;your password&gt;" in (await browser.get("/devices")).body
        await owner.api("POST", "products", json={"code": PRODUCT, "title": "Sensor"})
        assert f"dms activate {PRODUCT}" in (await browser.get("/devices")).body
        page = (await browser.get(f"/products/{PRODUCT}")).body
        assert f"scripts/bundle publish release.zb --server {dms.web_url} --tag release" in page
        device = dms.device()
        assert (await device.post("claim", user="ann", password=PASSWORD)).status == 200
        assert f"dms activate {PRODUCT}" in (await browser.get(f"/devices/{device.uuid}")).body


async def test_styles_and_icon_are_served(dms: Dms) -> None:
    for name, kind in (("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
        answer = await ask(dms.session, "GET", f"{dms.web_url}/static/{name}")
        assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, kind)
    for name in ("style.cssx", "stylexcss", "../render.py", "..%2frender.py", ""):
        assert (await ask(dms.session, "GET", f"{dms.web_url}/static/{name}")).status == 404
