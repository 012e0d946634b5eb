"""Requests to web servers by a real process: answers as streams, as files, and every way in which they fail."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from blockbuster import blockbuster_ctx

from tests.support.console import Caller, MemoryPayload
from tests.support.fakes import Device
from tests.support.webhost import WebHost
from zentrid import webworker
from zentrid.adapters import webclient
from zentrid.adapters.rights import KEEP_RIGHTS
from zentrid.adapters.webclient import WebClient, WebFiles
from zentrid.core.crc16 import crc16
from zentrid.core.webrequest import Head, WebRequest, parse_head
from zentrid.update.web import WebError
from zentrid.webworker import certificates, drop_rights, trusting

CONTENT = bytes(range(256)) * 700


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[None]:
    with blockbuster_ctx("zentrid"):
        yield


@pytest.fixture
def web() -> Iterator[WebHost]:
    with WebHost(CONTENT).running() as host:
        yield host


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Caller]:
    device = Device(tmp_path / "zentri")
    caller = Caller(device)
    yield caller
    await device.ctx.streams.close_all()
    client = cast("WebClient", device.ctx.web)
    assert not client._open
    assert not client._starting
    assert caller.crashes == []


def use(call: Caller, code: str, most: int = 2) -> None:
    """Let a program of the test's own be the process that asks."""
    call.device.ctx.web = WebClient(WebFiles(Path("/"), Path("/")), "t", argv=(sys.executable, "-c", code), most=most)


async def test_an_answer_is_a_stream(call: Caller, web: WebHost) -> None:
    assert await call.body(f"http_get {web.url}") == "0"
    assert call.out.lines == ["HTTP response: 200"]
    assert await call.body("http_read_status 0") == "200"
    assert web.requests[0]["User-Agent"] == "zentrid/test"
    first = (await call("read 0 99997")).data
    assert first == CONTENT[:99_997]
    assert await call.body("poll 0") == "1"
    rest = (await call("read 0 99997")).data
    assert rest == CONTENT[99_997:]
    assert await call.body("poll 0") == "2"
    assert (await call("read 0 1")).data == b""
    assert await call.body("hre 0") == "200"
    await call.body("close 0")


async def test_every_status_is_an_answer(call: Caller, web: WebHost) -> None:
    web.status[0] = 404
    handle = await call.body(f"http_get {web.url.removeprefix('http://')}")
    assert await call.body(f"http_read_status {handle}") == "404"
    assert (await call(f"read {handle} 10")).data == b""


async def test_redirects_are_followed_a_few_times(call: Caller, web: WebHost) -> None:
    web.redirects = {"/a": "/b", "/b": web.url}
    base = web.url.removesuffix("/new.zb")
    assert (await call(f"read {await call.body(f'http_get {base}/a')} 5")).data == CONTENT[:5]
    web.redirects = {"/a": "/a"}
    answer = await call(f"http_get {base}/a")
    assert (answer.code, "more than 3 times" in answer.reason) == (1, True)
    web.redirects = {"/a": "file:///etc/shadow"}
    answer = await call(f"http_get {base}/a")
    assert (answer.code, "http:// or https://" in answer.reason) == (1, True)


async def test_posting(call: Caller, web: WebHost) -> None:
    address = web.url.replace("new.zb", "post")
    answer = await call(f"http_post -l 5 {address} text/plain", payload=MemoryPayload(b"hello"))
    assert (answer.code, answer.body) == (0, "0")
    assert (await call("read 0 100")).data == b"hello"
    assert web.requests[-1]["Content-Type"] == "text/plain"
    assert await call.body(f"http_post -o {address} application/json") == "1"
    asked = len(web.requests)
    await call("write 1 4", payload=MemoryPayload(b'{"a"'))
    await call("write 1 4", payload=MemoryPayload(b": 1}"))
    assert len(web.requests) == asked
    assert await call.body("poll 1") == "0"
    assert await call.body("http_read_status 1") == "200"
    answer = await call("write 1 1", payload=MemoryPayload(b"x"))
    assert (answer.code, "sent already" in answer.reason) == (1, True)
    assert (await call("read 1 100")).data == b'{"a": 1}'


async def test_what_is_posted_has_a_limit(call: Caller, web: WebHost) -> None:
    await call.body(f"http_post -o {web.url} text/plain")
    assert (await call("write 0 65536", payload=MemoryPayload(b"x" * 65_536))).code == 0
    assert (await call("write 0 1", payload=MemoryPayload(b"x"))).code == 9
    answer = await call("close 0")
    assert (answer.code, "not sent" in answer.reason) == (1, True)


async def test_a_download_becomes_a_file(call: Caller, web: WebHost) -> None:
    assert await call.body(f"http_download -c {crc16(CONTENT):x} {web.url} fw/new.bin") == "File created"
    assert call.out.steps[-1][0] == 100
    assert await asyncio.to_thread((call.device.store.top / "fw/new.bin").read_bytes) == CONTENT
    web.length_known = False
    assert await call.body(f"http_download {web.url} b") == "File created"
    assert (await call.device.ctx.files.stat("b")).size_bytes == len(CONTENT)


@pytest.mark.parametrize("length_known", [True, False])
@pytest.mark.parametrize("size_bytes", [0, 1, 16_384, 32_768])
async def test_downloads_that_end_with_a_whole_piece(call: Caller, size_bytes: int, length_known: bool) -> None:
    with WebHost(CONTENT[:size_bytes]).running() as host:
        host.length_known = length_known
        assert await call.body(f"http_download {host.url} a") == "File created"
    assert (await call.device.ctx.files.stat("a")).size_bytes == size_bytes


async def test_downloads_that_fail_leave_the_old_file(call: Caller, web: WebHost) -> None:
    await call("file_create a 3", payload=MemoryPayload(b"old"))
    web.status[0] = 500
    web.cuts = [len(CONTENT) - 1]
    for line, reason in (
        (f"http_download {web.url} a", "status 500"),
        (f"http_download {web.url} a", f"broke off after {len(CONTENT) - 1} "),
        (f"http_download -c 0000 {web.url} a", "CRC"),
    ):
        answer = await call(line)
        assert (answer.code, reason in answer.reason) == (1, True), answer
    web.endless = True
    answer = await call(f"http_download {web.url} a")
    assert (answer.code, "at most" in answer.reason) == (1, True), answer
    assert await asyncio.to_thread((call.device.store.top / "a").read_bytes) == b"old"
    assert (await asyncio.to_thread(call.device.store._room)).total_bytes == 3


async def test_an_endless_answer_waits_for_its_reader(call: Caller, web: WebHost) -> None:
    web.endless = True
    await call.body(f"http_get {web.url}")
    await asyncio.sleep(0.3)
    [entry] = call.device.ctx.streams.entries()
    held = entry.stream._answer._incoming.pending  # type: ignore[attr-defined]
    assert len(held) <= webclient.HELD_BYTES + 16 * 1024
    assert (await call("read 0 99997")).data is not None
    await asyncio.wait_for(call.body("close 0"), 5)


async def test_only_so_many_at_once(call: Caller, web: WebHost) -> None:
    web.trickle_pause_s = 0.2
    assert [await call.body(f"http_get {web.url}") for _ in range(2)] == ["0", "1"]
    answer = await call(f"http_get {web.url}")
    assert (answer.code, "2 requests are under way" in answer.reason) == (1, True)
    await call.body("close 0")
    assert await call.body(f"http_get {web.url}") == "2"


async def test_servers_that_are_not_there(call: Caller) -> None:
    answer = await call("http_get http://user:hunter2@127.0.0.1:9/x?token=hunter2")
    assert answer.code == 1
    assert "cannot reach http://127.0.0.1:9/x?…" in answer.reason
    assert "hunter2" not in answer.reason
    assert await call.body("list") == "No streams"


async def test_a_certificate_that_nobody_vouches_for(call: Caller, tmp_path: Path) -> None:
    pem = await asyncio.to_thread(certificate, tmp_path)
    with WebHost(CONTENT).running(pem) as host:
        answer = await call(f"http_get {host.url}")
        assert answer.code == 1
        assert "ca.pem" in answer.reason
        answer = await call(f"http_download {host.url} a")
        assert answer.code == 1
        data = pem.read_bytes()[pem.read_bytes().index(b"-----BEGIN CERTIFICATE") :]
        await call(f"file_create ca.pem {len(data)}", payload=MemoryPayload(data))
        assert await call.body(f"http_get {host.url}") == "0"
        assert (await call("read 0 5")).data == CONTENT[:5]


def certificate(folder: Path) -> Path:
    """Make a key and a certificate that vouches for itself, for 127.0.0.1."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


# --- the process does what it should not ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "code",
    [
        "pass",
        "print('nonsense')",
        "print('{}')",
        "print('[' * 100000)",
        "import sys; sys.stdout.write('x' * 100000)",
        "import sys; sys.exit('out of memory')",
    ],
)
async def test_a_process_that_says_nonsense(call: Caller, code: str) -> None:
    use(call, code)
    answer = await call("http_get x")
    assert (answer.code, "inside the device" in answer.reason) == (1, True)
    assert await call.body("list") == "No streams"


async def test_a_process_that_dies_in_the_middle(call: Caller) -> None:
    head = Head(200, 10).to_line()
    use(
        call,
        f"import sys; sys.stdout.buffer.write({head!r} + b'abc'); sys.stdout.flush(); sys.exit('the cable\\x1b broke')",
    )
    assert await call.body("http_get x") == "0"
    answer = await call("read 0 10")
    assert (answer.code, answer.reason) == (1, "the cable? broke")
    assert await call.body("poll 0") == "2"


async def test_a_process_that_ends_its_answer_and_stays(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "_END_S", 0.2)
    head = Head(200).to_line()
    use(call, f"import os, time; os.write(1, {head!r} + b'abc'); os.close(1); time.sleep(60)")
    await call.body("http_get x")
    answer = await call("read 0 10")
    assert (answer.code, "broke off" in answer.reason) == (1, True)


async def test_a_process_that_never_answers(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "HEAD_S", 0.3)
    use(call, "import time; time.sleep(60)")
    answer = await call("http_get x")
    assert (answer.code, "No answer began" in answer.reason) == (1, True)


async def test_silence_in_the_middle_loses_nothing(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "SILENCE_S", 0.3)
    head = Head(200).to_line()
    use(call, f"import sys, time; sys.stdout.buffer.write({head!r} + b'abc'); sys.stdout.flush(); time.sleep(60)")
    await call.body("http_get x")
    answer = await call("read 0 10")
    assert (answer.code, "sent nothing" in answer.reason) == (1, True)
    assert (await call("read 0 3")).data == b"abc"


async def test_closing_ends_a_read_that_waits(call: Caller) -> None:
    head = Head(200).to_line()
    use(call, f"import sys, time; sys.stdout.buffer.write({head!r}); sys.stdout.flush(); time.sleep(60)")
    await call.body("http_get x")
    waiting = asyncio.create_task(call("read 0 10"))
    await asyncio.sleep(0.05)
    assert (await call("read 0 1")).reason.startswith("Another command uses stream 0")
    await call.body("close 0")
    answer = await asyncio.wait_for(waiting, 5)
    assert (answer.code, "closed by another command" in answer.reason) == (1, True)


async def test_a_request_that_is_given_up_ends_its_process(call: Caller) -> None:
    use(call, "import time; time.sleep(60)", most=1)
    task = asyncio.create_task(call("http_get x"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    client = cast("WebClient", call.device.ctx.web)
    client._argv = (sys.executable, "-c", "pass")
    # The same client has room for one request only.
    reason = (await asyncio.wait_for(call("http_get x"), 5)).reason
    assert "failed inside the device" in reason


# --- what both sides say --------------------------------------------------------------------------------------------------
def test_heads() -> None:
    for head in (Head(200), Head(404, 0), Head(0, None, "why")):
        assert parse_head(head.to_line()) == head
    assert parse_head(Head(error="a\x1bb" + "x" * 999).to_line()).error == "a?b" + "x" * 397


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"{}", b"[]", b'{"status":"x","length_bytes":0,"error":""}', b'{"status":0,"length_bytes":0,"error":""}',
        b'{"status":1000,"length_bytes":0,"error":""}', b'{"status":200,"length_bytes":-1,"error":""}',
        b'{"status":200,"length_bytes":1e400,"error":""}', b'{"status":200}', b"[" * 100_000, b"\xff",
    ],
)  # fmt: skip
def test_heads_that_make_no_sense(line: bytes) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        parse_head(line)


def test_an_unusable_list_of_authorities_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    before = len(trusting().get_ca_certs())
    for content in (b"no certificate", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        path.write_bytes(content)
        assert len(trusting(certificates(path)).get_ca_certs()) == before
    assert certificates(tmp_path) == certificates(tmp_path / "none") == ""


def test_without_its_user_it_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEEP_RIGHTS)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    with pytest.raises(WebError, match="no user no-such-user"):
        drop_rights("no-such-user")


def test_a_list_of_authorities_is_parsed_without_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(webworker, "drop_rights", lambda _: done.append("rights dropped"))
    monkeypatch.setattr(webworker, "trusting", lambda *_: done.append("parsed"))
    monkeypatch.setattr(webworker, "run", lambda *_: 0)
    line = WebRequest("http://x").to_line()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(line)))
    assert webworker.main() == 0
    assert done == ["rights dropped", "parsed"]
