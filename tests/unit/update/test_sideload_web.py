"""Bundles on any web server: by ranges, without them, over lost connections, and from servers that mean no good."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.provision_tool import pki
from tests.support.device import Device
from tests.support.fleet import Fleet, Release, make_release
from tests.support.webhost import WebHost
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.core.weburl import parse_url
from zentrid.ports import UpdateOptions
from zentrid.update.transport import Limits
from zentrid.update.web import WebFile, web_trust


@pytest.fixture
def offline(device: Device) -> Device:
    device.parts_changes["server"] = lambda: ("127.0.0.1", 1)
    device.start()
    return device


@pytest.fixture
def web(fleet: Fleet, device: Device, new: Release, tmp_path: Path) -> Iterator[WebHost]:
    device.known[new.version] = new
    with WebHost(fleet.bundle(new, tmp_path / "new.zb").read_bytes()).running() as host:
        yield host


async def refused(device: Device, url: str) -> str:
    before = device.snapshot(), device.store.read()
    last = await device.update(source=url)
    assert (last.ok, last.result) == (False, 3), last
    assert (device.snapshot(), device.store.read()) == before
    return last.message


async def test_by_ranges_only_what_is_needed_is_fetched(offline: Device, web: WebHost, new: Release) -> None:
    with offline.part("rootfs_b").open("r+b") as file:
        file.write(new.rootfs[: 600 * 4096])  # its last frame is what is missing, and the kernel
    last = await offline.update(source=web.url)
    assert last.ok, last.message
    assert offline.slot_holds("b", new)
    assert all("Range" in request for request in web.requests)
    assert 0 < last.received_bytes <= web.sent_bytes < len(web.content) / 2
    await offline.boot().start()
    assert offline.version == "1.1.0"


@pytest.mark.parametrize("length_known", [True, False])
async def test_without_ranges_it_is_read_in_one_pass(
    offline: Device, web: WebHost, new: Release, length_known: bool
) -> None:
    web.ranges, web.length_known = False, length_known
    last = await offline.update(source=web.url)
    assert last.ok, last.message
    assert offline.slot_holds("b", new)
    assert len(web.requests) == 2  # one to look at it, one to install it


@pytest.mark.parametrize("ranges", [True, False])
async def test_lost_connections(offline: Device, web: WebHost, new: Release, ranges: bool) -> None:
    web.ranges = ranges
    web.cuts = [100, 3000, 40_000, 20_000, 90_000, 700_000]
    last = await offline.update(source=web.url)
    assert last.ok, last.message
    assert offline.slot_holds("b", new)
    assert web.cuts == []


async def test_a_server_that_is_busy_for_a_moment(offline: Device, web: WebHost, new: Release) -> None:
    web.status = {1: 503, 3: 429}
    assert (await offline.update(source=web.url)).ok


@pytest.mark.parametrize("status", [401, 404, 418])
async def test_a_server_that_says_no(offline: Device, web: WebHost, status: int) -> None:
    web.status = dict.fromkeys(range(99), status)
    assert f"answered with status {status}; check the address" in await refused(offline, web.url)
    assert len(web.requests) == 1


async def test_nobody_there(offline: Device) -> None:
    assert "cannot read http://127.0.0.1:1/x.zb (Connection refused)" in await refused(
        offline, "http://127.0.0.1:1/x.zb"
    )


async def test_redirects(offline: Device, web: WebHost) -> None:
    web.redirects = {"/a": "/b", "/b": "c", "/c": web.url}
    assert (await offline.update(source=web.url.replace("/new.zb", "/a"))).ok


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/a", "leads elsewhere more than 3 times"),
        ("file:///identity/device.key", "only addresses that begin with http"),
        ("ftp://127.0.0.1/x", "only addresses that begin with http"),
    ],
)
async def test_redirects_that_are_not_followed(offline: Device, web: WebHost, location: str, message: str) -> None:
    web.redirects = {"/a": location}
    assert message in await refused(offline, web.url.replace("/new.zb", "/a"))


async def test_a_password_stays_with_its_server(
    offline: Device, web: WebHost, caplog: pytest.LogCaptureFixture
) -> None:
    with WebHost().running() as first:
        first.redirects = {"/a": "/b", "/b": web.url}
        news = await offline.news(source=f"http://me:hunter2@127.0.0.1:{first.port}/a")
    assert news[-1].ok, news[-1].message
    assert all(request["Authorization"] == "Basic bWU6aHVudGVyMg==" for request in first.requests)
    assert not any("Authorization" in request for request in web.requests)
    assert "hunter2" not in f"{news}{caplog.text}"


async def test_a_password_is_in_no_message(offline: Device, caplog: pytest.LogCaptureFixture) -> None:
    message = await refused(offline, "http://me:hunter2@127.0.0.1:1/x.zb?token=hunter2")
    assert "hunter2" not in message + caplog.text
    journal = (offline.folder / "data").rglob("*")
    assert not any(b"hunter2" in path.read_bytes() for path in journal if path.is_file())


async def test_the_file_changes_while_it_is_installed(offline: Device, web: WebHost) -> None:
    web.change_after = 4
    last = await offline.update(source=web.url)
    assert not last.ok
    assert "was changed while it was read; start the update again" in last.message
    assert offline.store.read().b_left == 0


async def test_another_release_between_looking_and_installing(
    offline: Device, web: WebHost, fleet: Fleet, tmp_path: Path
) -> None:
    other = fleet.bundle(make_release("1.2.0", b"\1" * 400_000), tmp_path / "other.zb").read_bytes()
    heads = 0

    async def swap(_manifest: object) -> None:
        nonlocal heads
        heads += 1
        web.content, web.etag = other, '"3"'

    offline.parts_changes["pre_install"] = swap
    offline.start()
    last = await offline.update(source=web.url)
    assert (heads, last.ok) == (1, False)
    assert "the bundle lacks the payload" in last.message


async def test_a_file_cut_short_on_the_server(offline: Device, web: WebHost) -> None:
    web.content = web.content[: len(web.content) // 2]
    last = await offline.update(source=web.url)
    assert not last.ok
    assert "it ends inside" in last.message or "the bundle ends inside" in last.message


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("content", [b"", b"no bundle", bytes(100_000)])
async def test_no_bundle_at_all(offline: Device, web: WebHost, content: bytes, ranges: bool) -> None:
    web.content, web.ranges = content, ranges
    assert (await refused(offline, web.url)).startswith("bundle file: ")


async def test_an_endless_answer(offline: Device, web: WebHost) -> None:
    web.endless = True
    web.ranges = False
    assert "it goes on after its end" in await refused(offline, web.url)
    assert web.sent_bytes == 0  # counted when all of it is sent


async def test_a_server_that_trickles(offline: Device, web: WebHost) -> None:
    web.trickle_pause_s = 0.3
    assert "sends only" in await refused(offline, web.url)


@pytest.mark.parametrize(
    ("claimed", "message"),
    [
        ("bytes 7-99/1000", "sent another part of the file"),
        ("bytes 0-99/*", "does not tell the file's size"),
        ("junk", "does not tell the file's size"),
        ("bytes 0-511/" + "9" * 400, "does not tell the file's size"),
    ],
)
async def test_answers_that_make_no_sense(offline: Device, web: WebHost, claimed: str, message: str) -> None:
    web.claimed_part = claimed
    assert message in await refused(offline, web.url)


async def test_a_server_that_compresses(offline: Device, web: WebHost) -> None:
    web.headers = {"Content-Encoding": "gzip"}
    assert "compresses the file on its way" in await refused(offline, web.url)


async def test_headers_without_end(offline: Device, web: WebHost) -> None:
    web.headers = {f"X-{number}": "y" * 60_000 for number in range(200)}
    assert "cannot read" in await refused(offline, web.url)


async def test_https_that_cannot_be_checked_is_said_and_used(
    offline: Device, web: WebHost, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    certificate = _certificate(pki.new_authority("Somebody"), tmp_path)
    with WebHost(web.content).running(certificate) as secure:
        assert (await offline.update(source=secure.url, check_only=True)).ok
        said = capfd.readouterr().err
        assert said.count("cannot be checked") == 1
        message = await refused(offline, secure.url.replace("://", "://me:hunter2@"))
    assert "it gets no password from this device" in message
    assert not any("Authorization" in request for request in secure.requests)


async def test_https_of_the_dms_own_authority_is_checked(
    offline: Device, web: WebHost, fleet: Fleet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    certificate = _certificate(fleet.server_ca, tmp_path)
    with WebHost(web.content).running(certificate) as secure:
        address = secure.url.replace("://127.0.0.1", "://me:hunter2@localhost")
        last = await offline.update(source=address)
    assert last.ok, last.message
    assert "cannot be checked" not in capfd.readouterr().err
    assert all("Authorization" in request for request in secure.requests)


def _certificate(authority: pki.Authority, folder: Path) -> Path:
    key = pki.new_key()
    certificate = pki.server_certificate(authority, key.public_key())
    path = folder / "web.pem"
    path.write_bytes(pki.key_pem(key) + pki.certificate_pem(certificate))
    return path


async def test_the_same_checks_as_for_files(offline: Device, web: WebHost, fleet: Fleet, tmp_path: Path) -> None:
    web.content = fleet.bundle(make_release("0.9.0"), tmp_path / "ancient.zb").read_bytes()
    assert "older than 1.0.0" in await refused(offline, web.url)
    foreign = Fleet(tmp_path / "other")
    web.content, web.etag = foreign.bundle(make_release("1.1.0"), tmp_path / "foreign.zb").read_bytes(), '"5"'
    assert "targets.json is not signed as it must be" in await refused(offline, web.url)
    web.content = fleet.bundle(make_release("2.0.0", min_version="1.5.0"), tmp_path / "big.zb").read_bytes()
    assert "1.5.0" in await refused(offline, web.url)
    web.content = fleet.bundle(make_release("2.0.1", compatible=("other",)), tmp_path / "board.zb").read_bytes()
    assert "virt" in await refused(offline, web.url)
    web.content = fleet.bundle(make_release("2.0.2", bytes(8 << 20)), tmp_path / "large.zb").read_bytes()
    assert "the slot has 4194304; build a smaller image" in await refused(offline, web.url)


async def test_from_safe_mode(offline: Device, web: WebHost) -> None:
    offline.store.update(lambda state: state.__class__(a_left=0, b_left=0, floor=state.floor))
    offline.boot()
    assert offline.running == "r"
    assert (await offline.update(source=web.url)).ok
    offline.boot()
    assert offline.version == "1.1.0"


@pytest.mark.parametrize("ranges", [True, False])
async def test_memory_stays_below_its_limit(
    device: Device, web: WebHost, caplog: pytest.LogCaptureFixture, ranges: bool
) -> None:
    probe = """
import sys
from zentrid.update import worker
status = worker.main()
peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]
print(f'peak_kib={peak} asyncio={"asyncio" in sys.modules}', file=sys.stderr)
sys.exit(status)
"""
    web.ranges = ranges
    device.launcher = SubprocessLauncher([sys.executable, "-c", probe])
    device.parts_changes["server"] = lambda: ("127.0.0.1", 1)
    device.start()
    last = await device.update(source=web.url)
    assert last.ok, last.message
    peaks = [int(word.split("=")[1]) for word in caplog.text.split() if word.startswith("peak_kib=")]
    assert len(peaks) == 2
    assert max(peaks) < 50 * 1024, peaks
    assert "asyncio=True" not in caplog.text
    print(f"peaks: {peaks} KiB")


async def test_a_worker_that_is_killed_costs_only_what_was_under_way(
    device: Device, web: WebHost, new: Release
) -> None:
    device.launcher = SubprocessLauncher([sys.executable, "-m", "zentrid.update.worker"])
    device.parts_changes["server"] = lambda: ("127.0.0.1", 1)
    device.start()
    web.trickle_pause_s = 0.001
    killed = False
    async for news in device.manager.run(UpdateOptions(source=web.url)):
        if not killed and news.state == "downloading" and news.received_bytes > 1_500_000:
            process = device.manager._attempt._worker._process  # type: ignore[union-attr]
            os.kill(process.pid, signal.SIGKILL)
            killed = True
    assert killed
    assert not news.ok
    whole, web.trickle_pause_s = web.sent_bytes, 0.0
    last = await device.update(source=web.url)
    assert last.ok, last.message
    assert web.sent_bytes - whole < len(web.content) - 1_100_000  # the kernel and the first frame were there
    assert device.slot_holds("b", new)


def test_the_owners_limit_holds_here_too(fleet: Fleet, web: WebHost) -> None:
    slept: list[float] = []
    limits = Limits(max_rate_bytes_s=8192.0)
    file = WebFile(parse_url(web.url), web_trust(fleet.identity_dir), limits, sleep=slept.append, clock=lambda: 100.0)
    assert len(b"".join(file.read(0, 16384))) == 16384
    file.close()
    assert sum(slept) >= 2.0
