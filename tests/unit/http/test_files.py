"""The Web App's files by HTTP, and the page that is there when they are damaged."""

import asyncio
import hashlib
import json
from pathlib import Path

import aiohttp
import pytest

from tests.support.httpdoor import DoorProcess, door_process
from zentrid.adapters.filestore import FileStore
from zentrid.core.files import FileMeta
from zentrid.http import files as files_module
from zentrid.http.config import Config
from zentrid.http.files import WebApp


async def test_files_with_types_ranges_and_tags(client: aiohttp.ClientSession, files: Path):
    async with client.get("/") as response:
        assert (response.status, await response.text()) == (200, "<h1>the app</h1>")
        assert response.content_type == "text/html"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert "aiohttp" not in response.headers["Server"]
    async with client.get("/js/app.js") as response:
        whole, tag = await response.read(), response.headers["ETag"]
        assert whole == (files / "webapp/js/app.js").read_bytes()
        assert "javascript" in response.content_type
    async with client.get("/js/app.js", headers={"Range": "bytes=4-9"}) as response:
        assert (response.status, await response.read()) == (206, whole[4:10])
    async with client.get("/js/app.js", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
    async with client.head("/js/app.js") as response:
        assert (response.status, response.content_length) == (200, len(whole))


async def test_nothing_else_of_the_device_is_given(door: DoorProcess, files: Path):
    (files / "webapp" / "link").symlink_to("/etc/passwd")
    (files / "webapp" / ".hidden").write_text("hidden")
    for path in (
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/js/../../secret.txt", "//secret.txt", "/./secret.txt",
        "/link", "/.hidden", "/js", "/js/", "/secret.txt", "/webapp/index.html", "/index.html%00", "/" + "a/" * 20 + "x",
        "/" + "x" * 5000,
    ):  # fmt: skip
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert answer.split(b" ")[1] in (b"404", b"400"), path
        assert b"hidden" not in answer
        assert b"business" not in answer


@pytest.mark.parametrize("root", ["", "webapp/none.html", "webapp", "../secret.txt", "nowhere/at/all.html"])
async def test_a_damaged_app_leads_to_the_page_of_the_image(tmp_path: Path, files: Path, root: str):
    config = Config(console=str(tmp_path / "none"), files=str(files), root_filename=root)
    async with door_process(config) as door, aiohttp.ClientSession(door.url) as client:
        async with client.get("/", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, "/.recovery.html")
        async with client.get("/") as response:
            text = await response.text()
            assert response.status == 200
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]
            assert "<script src=" in text
        for name, kind in ((".recovery.js", "text/javascript"), (".recovery.css", "text/css")):
            async with client.get(f"/{name}") as response:
                assert (response.status, response.content_type) == (200, kind)
        async with client.get("/.recovery.json") as response:
            facts = await response.json()
        assert len(facts["problems"]) == 1
        assert facts["account"] is False


async def test_set_up_mode_begins_with_its_own_page(door: DoorProcess, client: aiohttp.ClientSession):
    for page, place in (("", "/.recovery.html"), ("js/app.js", "/js/app.js")):
        await door.tell(setup=True, setup_root=page)
        async with client.get("/", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, place)
    await door.tell(setup=False)
    async with client.get("/", allow_redirects=False) as response:
        assert response.status == 200


def with_list(files: Path, **changes: object) -> WebApp:
    content = (files / "webapp/js/app.js").read_bytes()
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | changes
    (files / "webapp/webapp.json").write_text(json.dumps({"files": {"js/app.js": entry, "index.html": {"size": 16}}}))
    return WebApp(files, "webapp/index.html")


def test_the_list_shows_what_is_damaged(files: Path):
    assert with_list(files).problems() == ()
    assert with_list(files, size=7).problems() == ("js/app.js has 1100 bytes instead of 7.",)
    assert with_list(files, sha256="0" * 64).problems() == ("js/app.js is damaged.",)
    app = with_list(files)
    (files / "webapp/js/app.js").unlink()
    assert app.problems() == ("js/app.js is missing.",)
    for raw in ("", "{}", "[]", '{"files": []}', '{"files": {"../x": {"size": 1}}}', '{"files": {"x": {"size": true}}}',
                '{"files": {"x": {}}}', "[" * 50_000, '{"files": {"x": {"size": 99999999999}}}', " " * 70_000):  # fmt: skip
        (files / "webapp/webapp.json").write_text(raw)
        [problem] = WebApp(files, "webapp/index.html").problems()
        assert "webapp.json" in problem


def created(files: Path, name: str, data: bytes) -> None:
    new = FileStore(files).create(name, len(data), FileMeta())
    new.write(data)
    new.finish()


def test_without_a_list_the_crc_shows_what_is_damaged(files: Path):
    created(files, "webapp/index.html", b"<h1>mine</h1>")
    created(files, "webapp/js/mine.js", b"x" * 600_000)
    app = WebApp(files, "webapp/index.html")
    assert app.problems() == ()
    with (files / "webapp/js/mine.js").open("r+b") as stream:
        stream.seek(300_000)
        stream.write(b"y")
    assert WebApp(files, "webapp/index.html").problems() == ("js/mine.js is damaged.",)
    # What a list does not name is an addition: it is no reason not to show the app.
    assert with_list(files, size=1100).problems() == ("index.html has 13 bytes instead of 16.",)


def test_what_was_found_of_a_file_holds_until_it_is_touched(files: Path, monkeypatch: pytest.MonkeyPatch):
    looked: list[Path] = []
    look = files_module._sha256

    def note(path: Path) -> str:
        looked.append(path)
        return look(path)

    monkeypatch.setattr(files_module, "_sha256", note)
    app = with_list(files)
    for _ in range(3):
        app._looked_s = None
        assert app.problems() == ()
    assert len(looked) == 1
    (files / "webapp/js/app.js").write_text("LET a = 1;\n" * 100)
    app._looked_s = None
    assert app.problems() == ("js/app.js is damaged.",)


async def test_pages_may_use_only_what_the_device_gives(door: DoorProcess, client: aiohttp.ClientSession):
    for path in ("/", "/js/app.js", "/.recovery.html"):
        async with client.get(path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;")
            assert "unsafe" not in policy
    await door.tell(inline_enabled=True)
    async with client.get("/") as response:
        policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self' 'unsafe-inline'" in policy
        assert "http" not in policy
        assert "*" not in policy
    async with client.get("/.recovery.html") as response:
        assert "unsafe" not in response.headers["Content-Security-Policy"]
