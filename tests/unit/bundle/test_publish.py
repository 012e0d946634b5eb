"""Publishing: against a small server that answers as the DMS does, over a real connection."""

import hashlib
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from scripts.bundle_tool import __main__ as cli
from scripts.bundle_tool.publish import PublishError, publish_bundle
from tests.unit.bundle.making import PRODUCT, full, item, manifest, noise
from zentrid.bundle.zbfile import open_bundle, write_bundle

TOKEN = "zt_secret-token"
PAYLOAD = noise(2_000_000)


class Dms(BaseHTTPRequestHandler):
    """The API's bundles, in the server's memory."""

    server: "DmsServer"

    def log_message(self, format, *arguments):
        """Say nothing."""

    def answer(self, status, document):
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def allowed(self):
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            return True
        self.answer(401, {"result": "fail", "message": "unknown token"})
        return False

    def do_GET(self):
        if not self.allowed():
            return
        known = self.server.bundles.get(self.path)
        if known is None:
            self.answer(404, {"result": "fail", "message": "no such bundle"})
        else:
            self.answer(200, known)

    def do_HEAD(self):
        if self.allowed():
            self.server.requests.append((self.path, -1))
            self.send_response(200 if self.path in self.server.symbols else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_PUT(self):
        if not self.allowed():
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.fail_symbols:
            self.answer(*self.server.fail_symbols)
            return
        self.server.symbols[self.path] = body
        self.answer(201, {"result": "ok"})

    def do_POST(self):
        if not self.allowed():
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, len(body)))
        if self.server.fail:
            self.answer(*self.server.fail)
        elif self.path == "/api/v1/bundles":
            self.server.uploaded = body
            self.server.bundles[f"/api/v1/bundles/{PRODUCT}/1.2.3"] = {
                "manifest_sha256": self.server.expected,
                "tags": [],
            }
            self.answer(201, {"result": "ok"})
        else:
            known = self.server.bundles[self.path.removesuffix("/tag")]
            known["tags"].append(json.loads(body)["tag"])
            self.answer(200, known)


class DmsServer(ThreadingHTTPServer):
    """What the handlers share."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Dms)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.bundles: dict[str, Any] = {}
        self.symbols: dict[str, bytes] = {}
        self.fail_symbols: tuple[int, Any] | None = None
        self.requests: list[tuple[str, int]] = []
        self.fail: tuple[int, Any] | None = None
        self.uploaded = b""
        self.expected = ""


@pytest.fixture
def server():
    server = DmsServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def bundle(path, chain):
    entry = item(PAYLOAD)
    with path.open("wb") as out:
        write_bundle(out, manifest(entry).to_bytes(), chain, {entry.root_hash: io.BytesIO(full(PAYLOAD)[1])})
    return path


@pytest.fixture
def signed(tmp_path, server):
    path = bundle(tmp_path / "x.zb", {"1.root.json": b"{}", "targets.json": b"{}", f"{PRODUCT}.json": b"{}"})
    server.expected = hashlib.sha256(open_bundle(path).manifest_bytes).hexdigest()
    return path


def test_a_bundle_arrives_whole_and_gets_its_tags(server, signed):
    told = []
    done = publish_bundle(signed, server.url, TOKEN, tags=("test", "release"), progress=lambda *now: told.append(now))
    assert server.uploaded == signed.read_bytes()
    assert (done.version, done.sent, done.tags) == ("1.2.3", True, ("test", "release"))
    assert told[-1] == (signed.stat().st_size, signed.stat().st_size)


def test_publishing_again_sends_nothing_but_the_tag(server, signed):
    publish_bundle(signed, server.url, TOKEN)
    done = publish_bundle(signed, server.url + "/", TOKEN, tags=("release",))
    assert not done.sent
    assert [path for path, _ in server.requests] == ["/api/v1/bundles", f"/api/v1/bundles/{PRODUCT}/1.2.3/tag"]


def test_another_release_under_the_same_version_is_not_sent(server, signed):
    server.expected = "0" * 64
    publish_bundle(signed, server.url, TOKEN)
    with pytest.raises(PublishError, match="build it with a new version"):
        publish_bundle(signed, server.url, TOKEN)


def test_a_wrong_token_is_noticed_before_anything_is_sent(server, signed):
    with pytest.raises(PublishError, match="status 401: unknown token") as caught:
        publish_bundle(signed, server.url, "zt_wrong")
    assert caught.value.status == 401
    assert "zt_wrong" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((422, {"result": "fail", "message": "bad chain"}), "422: bad chain"),
        ((500, b"<html>"), "500: check address"),
        ((302, {}), "302"),
        ((201, b"[]"), "201"),
    ],
)
def test_a_refusal_is_passed_on(server, signed, answer, sentence):
    server.fail = answer
    with pytest.raises(PublishError, match=sentence):
        publish_bundle(signed, server.url, TOKEN)


def test_an_unsigned_bundle_is_not_sent(server, tmp_path):
    with pytest.raises(PublishError, match="is not signed"):
        publish_bundle(bundle(tmp_path / "y.zb", {}), server.url, TOKEN)


def test_a_server_that_is_not_there(server, signed):
    with pytest.raises(PublishError, match="does not answer"):
        publish_bundle(signed, "http://127.0.0.1:1", TOKEN)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "http://host/?x=1"])
def test_what_is_no_address(signed, url):
    with pytest.raises(PublishError, match="write http"):
        publish_bundle(signed, url, TOKEN)


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "tokèn", "€"])
def test_what_is_no_token(server, signed, token):
    with pytest.raises(PublishError, match="copy it again"):
        publish_bundle(signed, server.url, token)
    assert server.requests == []


def test_the_token_may_come_from_the_environment(server, signed, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bundle", "publish", str(signed), "--server", server.url, "--json"])
    monkeypatch.delenv("ZENTRI_TOKEN", raising=False)
    with pytest.raises(SystemExit):
        cli.main()
    assert "no token" in json.loads(capsys.readouterr().out)["message"]
    monkeypatch.setenv("ZENTRI_TOKEN", TOKEN)
    with pytest.raises(SystemExit):
        cli.main()
    assert json.loads(capsys.readouterr().out)["sent"]
