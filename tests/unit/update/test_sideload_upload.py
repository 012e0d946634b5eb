"""The upload door: a real process, real HTTP, and what strangers, lost connections and full disks do to it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.console import Caller
from tests.support.device import Device
from tests.support.fakes import Device as Console
from tests.support.fleet import Fleet, Release
from zentrid.adapters.uploads import UploadDoor, UploadDoors, UploadError
from zentrid.commands.updaterun import UpdateRunner
from zentrid.core.uploads import MAX_WRONG_TOKENS, DoorNews
from zentrid.ports import UpdateProgress

CONTENT = bytes(range(256)) * 2000


class Client:
    """Whom the door is opened for; collects what the supervisor hears meanwhile."""

    def __init__(self, door: UploadDoor, session: aiohttp.ClientSession) -> None:
        self.door = door
        self.session = session
        self.heard: list[DoorNews] = []
        self.error: UploadError | None = None
        self.listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            async for news in self.door.news():
                self.heard.append(news)
        except UploadError as error:
            self.error = error

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {options.pop('token', self.door.token)}", **options.pop("headers", {})}
        url = f"http://127.0.0.1:{self.door.port}{path}"
        async with self.session.request(method, url, headers=headers, **options) as answer:
            return answer.status, json.loads(await answer.text() or "{}")

    async def send(
        self, data: bytes, start: int = 0, total: int | None = None, **options: Any
    ) -> tuple[int, dict[str, Any]]:
        whole = len(data) if total is None else total
        headers = {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{whole}"} if total is not None else {}
        return await self.ask("PUT", "/bundle", data=io.BytesIO(data), headers=headers, **options)

    async def send_and_leave(self, data: bytes, claimed: int, headers: str = "") -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.door.port)
        head = f"PUT /bundle HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.door.token}\r\n{headers}"
        writer.write(f"{head}Content-Length: {claimed}\r\n\r\n".encode() + data)
        await writer.drain()
        while not any(news.received_bytes for news in self.heard) and not self.listening.done():
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        writer.close()
        with suppress(OSError):
            await reader.read()


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Client]:
    doors = UploadDoors(folder, lambda: 0, address="127.0.0.1", **options)
    door = await doors.open()
    async with aiohttp.ClientSession() as session:
        client = Client(door, session)
        try:
            yield client
        finally:
            await door.close()
            await client.listening
    assert not door.path.exists()


async def finish(client: Client) -> None:
    await client.listening
    await client.door.tell(UpdateProgress("downloading", 5, "DEMO"))
    await client.door.tell(UpdateProgress("rebooting", 100, "Updated.", done=True))
    asyncio.get_running_loop().call_later(0.2, client.door._process.stdin.close)  # type: ignore[union-attr]


async def test_a_bundle_comes_in_and_its_sender_hears_how_it_goes(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        url = f"http://127.0.0.1:{client.door.port}/bundle"
        headers = {"Authorization": f"Bearer {client.door.token}"}
        async with client.session.put(url, data=CONTENT, headers=headers) as answer:
            assert answer.status == 200
            await finish(client)
            assert client.door.path.read_bytes() == CONTENT
            lines = [json.loads(line) async for line in answer.content]
        assert client.heard[-1] == DoorNews("received", len(CONTENT), len(CONTENT))
        assert [(line["percent"], line.get("result")) for line in lines] == [(5, None), (100, "ok")]


async def test_curl_as_the_console_says_it(tmp_path: Path) -> None:
    bundle = tmp_path / "x.zb"
    bundle.write_bytes(CONTENT * 4)
    async with opened(tmp_path / "in") as client:
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "-T", str(bundle), "-H", f"Authorization: Bearer {client.door.token}",
            f"http://127.0.0.1:{client.door.port}/bundle", stdout=subprocess.PIPE,
        )  # fmt: skip
        await finish(client)
        said, _ = await process.communicate()
        assert client.door.path.stat().st_size == len(CONTENT) * 4
    assert json.loads(said.splitlines()[-1])["result"] == "ok"


async def test_wrong_tokens_close_the_door(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        for number in range(MAX_WRONG_TOKENS):
            path = "/bundle" if number % 2 else "/status"
            status, answer = await client.ask("PUT" if number % 2 else "GET", path, token=f"wrong{number}")
            assert (status, answer["result"]) == (403, "fail")
        await client.listening
        assert client.error is not None
        assert "5 requests had a wrong token" in str(client.error)
        assert [news.kind for news in client.heard] == ["refused"] * MAX_WRONG_TOKENS
        with pytest.raises(aiohttp.ClientError):
            await client.send(CONTENT)


async def test_going_on_after_a_lost_connection(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        await client.send_and_leave(CONTENT[:200_000], len(CONTENT))
        status, state = await client.ask("GET", "/status")
        assert (status, state["received_bytes"], state["size_bytes"]) == (200, 200_000, len(CONTENT))
        status, answer = await client.send(CONTENT[100_000:], 100_000, len(CONTENT))
        assert (status, answer["message"]) == (409, "go on at byte 200000, or begin anew without Content-Range")
        status, answer = await client.send(CONTENT[200_000:300_000], 200_000, len(CONTENT))
        assert (status, answer["received_bytes"]) == (202, 300_000)
        sending = asyncio.create_task(client.send(CONTENT[300_000:], 300_000, len(CONTENT)))
        await client.listening
        assert client.door.path.read_bytes() == CONTENT
        client.door._process.stdin.close()  # type: ignore[union-attr]
        await sending


async def test_beginning_anew_with_a_shorter_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        await client.send_and_leave(CONTENT[:200_000], len(CONTENT))
        sending = asyncio.create_task(client.send(CONTENT[:1000]))
        await client.listening
        assert client.door.path.read_bytes() == CONTENT[:1000]
        client.door._process.stdin.close()  # type: ignore[union-attr]
        await sending


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Range": "bytes 0-1/2"}, 400),
        ({"Content-Range": "bytes 5-1/2"}, 400),
        ({"Content-Range": "junk"}, 400),
        ({"Content-Range": f"bytes 0-9/{10**14}"}, 413),
        ({"Content-Range": f"bytes 0-9/{2 * 10**9}"}, 507),
        ({"Content-Range": "bytes 7-16/100"}, 409),
    ],
)
async def test_requests_that_are_refused(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    small = _small_disk(tmp_path)
    async with opened(small / "in") as client:
        assert (await client.ask("PUT", "/bundle", data=b"x" * 10, headers=headers))[0] == status
        assert not client.listening.done()


async def test_no_length(tmp_path: Path) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 10

    async with opened(tmp_path) as client:
        assert (await client.ask("PUT", "/bundle", data=parts()))[0] == 411


async def test_one_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        first = asyncio.create_task(client.send_and_leave(CONTENT[:100_000], len(CONTENT)))
        while not client.heard:
            await asyncio.sleep(0.02)
        assert (await client.send(CONTENT))[0] == 409
        await first


async def test_a_sender_that_falls_silent(tmp_path: Path) -> None:
    async with opened(tmp_path, idle_s=0.3) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.door.port)
        writer.write(
            f"PUT /bundle HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.door.token}\r\n"
            "Content-Length: 1000\r\n\r\nabc".encode()
        )
        answer = await reader.readuntil(b"}")
        assert b" 408 " in answer
        assert b"go on at byte 3" in answer
        writer.close()


async def test_nobody_comes(tmp_path: Path) -> None:
    async with opened(tmp_path, open_s=0.2) as client:
        await client.listening
        assert "Nobody sent a bundle in time" in str(client.error)


@pytest.mark.parametrize(
    "junk", [b"\0" * 5000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000, b"PUT /bundle HTTP/9\r\n\r\n"]
)
async def test_junk(tmp_path: Path, junk: bytes) -> None:
    async with opened(tmp_path) as client:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.door.port)
            writer.write(junk)
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(0.1):
                    await reader.read()
            writer.close()
        assert (await client.ask("GET", "/status"))[0] == 200


def _small_disk(folder: Path) -> Path:
    """Return a folder on a file system of 18 MiB: two more than what must stay free."""
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=18m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("file systems cannot be mounted here")
    _MOUNTED.append(disk)
    return disk


_MOUNTED: list[Path] = []


@pytest.fixture(autouse=True)
def unmount() -> Any:
    yield
    while _MOUNTED:
        subprocess.run(["umount", str(_MOUNTED.pop())], check=True)


async def test_the_reserve_stays_free(tmp_path: Path) -> None:
    disk = _small_disk(tmp_path)
    async with opened(disk / "in") as client:
        status, answer = await client.send(bytes(3 << 20))
        assert status == 507
        assert answer["message"].startswith("the data partition has room for 20")
        assert os.statvfs(disk).f_bavail * 4096 > 16 << 20
        sending = asyncio.create_task(client.send(bytes(1 << 20)))
        await client.listening
        assert client.heard[-1].kind == "received"
        client.door._process.stdin.close()  # type: ignore[union-attr]
        await sending


async def test_a_refusal_before_the_bundle_is_sent(tmp_path: Path) -> None:
    disk = _small_disk(tmp_path)
    for headers, status in (("", 507), ("Content-Range: junk\r\n", 400), ("Content-Range: bytes 7-8/9\r\n", 409)):
        async with opened(disk / "in") as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", client.door.port)
            head = f"PUT /bundle HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.door.token}\r\n{headers}"
            length = 3 << 20 if status == 507 else 2
            writer.write(f"{head}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n".encode())
            answer = await reader.readuntil(b"}")
            assert f" {status} ".encode() in answer
            assert b"100 Continue" not in answer
            writer.close()


async def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    disk = _small_disk(tmp_path)
    async with opened(disk / "in") as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.door.port)
        head = f"PUT /bundle HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.door.token}\r\n"
        writer.write(f"{head}Content-Length: {1 << 20}\r\n\r\n".encode() + bytes(1000))
        while not client.heard:
            await asyncio.sleep(0.02)
        with suppress(OSError):
            (disk / "other").write_bytes(bytes(20 << 20))
        writer.write(bytes(1 << 19))
        answer = await reader.readuntil(b"}")
        assert b" 507 " in answer
        assert b"No space left on device" in answer
        writer.close()


async def test_only_one_door(tmp_path: Path) -> None:
    doors = UploadDoors(tmp_path, lambda: 0, address="127.0.0.1")
    door = await doors.open()
    try:
        with pytest.raises(UploadError, match="open already"):
            await doors.open()
    finally:
        await door.close()
    again = await doors.open()
    await again.close()


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(UploadError, match=r"check ota\.upload\.port"):
            await UploadDoors(tmp_path, lambda: port, address="127.0.0.1").open()


def test_what_was_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "upload.zb").write_bytes(b"x")
    UploadDoors(tmp_path / "in", lambda: 0).clear()
    assert not (tmp_path / "in").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_the_process_has_no_rights_and_is_small(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        await client.ask("GET", "/status")
        status = Path(f"/proc/{client.door._process.pid}/status").read_text()
        peak_kib = int(status.split("VmHWM:")[1].split()[0])
        print(f"peak_kib={peak_kib}")
        assert peak_kib < 64 * 1024


# --- from the console to the slot ---------------------------------------------------------------------------------


async def upload_from_console(console: Console, data: bytes) -> tuple[Any, str, str]:
    """Type `ota upload`, send the bundle as it says; return the answer, what was shown, and what the sender heard."""
    interrupt = asyncio.Event()
    caller = Caller(console)
    task = asyncio.create_task(caller("ota upload", interrupt))
    while not caller.out.lines and not task.done():
        await asyncio.sleep(0.02)
    shown = "\n".join(caller.out.lines)
    token, port = shown.split("Bearer ")[1].split('"')[0], int(shown.rpartition(":")[2].partition("/")[0])
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {token}"}
        async with session.put(f"http://127.0.0.1:{port}/bundle", data=io.BytesIO(data), headers=headers) as answer:
            heard = await answer.text()
    return await task, shown, heard


def console_of(device: Device, folder: Path) -> Console:
    console = Console(folder)
    console.ctx.updates = device.manager
    console.ctx.update_runner = UpdateRunner(device.manager, console.power, lambda: False)
    return console


@pytest.mark.parametrize("safe_mode", [False, True])
async def test_the_whole_way(device: Device, fleet: Fleet, new: Release, tmp_path: Path, safe_mode: bool) -> None:
    device.known[new.version] = new
    if safe_mode:
        device.store.update(lambda state: state.__class__(a_left=0, b_left=0, floor=state.floor))
        device.boot()
        assert device.running == "r"
    console = console_of(device, tmp_path / "console")
    data = fleet.bundle(new, tmp_path / "new.zb").read_bytes()
    answer, _, heard = await upload_from_console(console, data)
    assert answer.body.startswith("Updated to DEMO-VIRT_SENSOR-1.1.0."), answer
    assert json.loads(heard.splitlines()[-1])["result"] == "ok"
    assert not list((tmp_path / "console" / "incoming").iterdir())
    device.boot()
    assert device.version == "1.1.0"


async def test_a_bundle_that_is_refused(device: Device, new: Release, tmp_path: Path) -> None:
    foreign = Fleet(tmp_path / "other").bundle(new, tmp_path / "foreign.zb").read_bytes()
    before = device.snapshot()
    answer, _, heard = await upload_from_console(console_of(device, tmp_path / "console"), foreign)
    assert "targets.json is not signed as it must be" in answer.reason
    assert json.loads(heard.splitlines()[-1])["result"] == "fail"
    assert device.snapshot() == before
    assert not list((tmp_path / "console" / "incoming").iterdir())


async def test_ctrl_c_closes_the_door(tmp_path: Path) -> None:
    console = Console(tmp_path)
    caller, interrupt = Caller(console), asyncio.Event()
    task = asyncio.create_task(caller("ota upload", interrupt))
    while not caller.out.lines:
        await asyncio.sleep(0.02)
    interrupt.set()
    answer = await task
    assert answer.reason == "The upload door is closed; nothing was installed."
    door = await console.uploads.open()
    await door.close()


async def test_a_process_that_takes_nothing_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zentrid.adapters.uploads._TAKE_S", 0.01)
    code = "import os, time; os.fork() or os.setsid(); time.sleep(15)"
    doors = UploadDoors(tmp_path, lambda: 0, address="127.0.0.1", argv=(sys.executable, "-c", code))
    door = await doors.open()
    async with asyncio.timeout(10):
        for _ in range(40):
            await door.tell(UpdateProgress("downloading", 5, "x" * 8000))
        await door.close(wait_s=0.5)
    assert not door.path.exists()
