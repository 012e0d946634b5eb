"""Commands by HTTP, by the door's own process on a device in memory: GET, POST, flags, limits, log."""

import asyncio
import base64
import json

import aiohttp
import pytest
from yarl import URL

from tests.support.commandline import scripted_console
from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess, door_process
from zentrid.http.config import Config

VERSION = "DEMO-VIRT_SENSOR-1.4.0, 2026-11-01T10:00:00Z, Zentri-1.4.0, Board:virt\r\n"


async def get(client: aiohttp.ClientSession, path: str | URL, **options):
    async with client.get(path, **options) as response:
        return response.status, await response.json(content_type=None)


async def post(client: aiohttp.ClientSession, body: object, **options):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post("/command", data=data, **options) as response:
        return response.status, await response.json()


async def test_one_process_answers_get_and_post(client: aiohttp.ClientSession, device: Device):
    assert await get(client, "/command/version") == (200, {"id": 1, "code": 0, "flags": 0, "response": VERSION})
    assert (await get(client, "/command/get%20sy%20u"))[1]["response"] == device.ctx.identity.uuid + "\r\n"
    assert await post(client, {"command": "ver ", "flags": 0}) == (
        200, {"id": 3, "code": 0, "flags": 0, "response": VERSION},
    )  # fmt: skip
    coded = base64.b64encode(b"set system.name boiler").decode()
    status, answer = await post(client, {"command": coded, "flags": 7, "data": ""})
    assert (status, answer["code"], base64.b64decode(answer["response"])) == (200, 0, b"Set OK\r\n")
    assert device.settings.values.text("system.name") == "boiler"
    # A failed command is an answer like any other, and says why.
    status, answer = await get(client, "/command/nonsense")
    assert (status, answer["code"], answer["response"]) == (200, 3, "Unknown command\r\n")
    assert "help commands" in answer["log"][0]
    # A question mark that was not coded belongs to the line.
    assert (await get(client, "/command/set system.name a?b=1"))[1]["code"] == 0
    assert device.settings.values.text("system.name") == "a?b=1"
    # What asks for it may not read it: HEAD carries nothing out.
    async with client.head("/command/reboot") as response:
        assert response.status == 404
    assert not device.power.reboots


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("version%0d%0areboot", 2), ("version%00", 2), ("%03", 2), ("", 2), ("%20", 2), ("%ff%fe", 2),
        ("x" * 2049, 8), ("version%7f", 2),
    ],
)  # fmt: skip
async def test_a_line_that_is_none_does_nothing(client: aiohttp.ClientSession, device: Device, line: str, code: int):
    status, answer = await get(client, URL(f"/command/{line}", encoded=True))
    assert (status, answer["code"]) == (200, code)
    assert answer["log"]
    assert not device.power.reboots


async def test_bodies_that_are_no_request(client: aiohttp.ClientSession, device: Device):
    for body in (
        b"", b"reboot", b"[]", b'"reboot"', b"[" * 60_000, b'{"command": 1}', b"{}", b'{"command": "reboot", "flags": 8}',
        b'{"command": "reboot", "flags": true}', b'{"command": "reboot", "flags": -1}', b'{"command": "reboot", "flags": "1"}',
        b'{"command": "reboot", "data": [1]}', b'{"command": "r!!boot", "flags": 1}', b"\xff\xfe",
    ):  # fmt: skip
        status, answer = await post(client, body)
        assert (status, list(answer)) == (400, ["error"]), body
    assert (await post(client, {"command": "\ud800"}))[1]["code"] == 2
    assert not device.power.reboots


async def test_a_large_request_is_refused_and_does_nothing(door: DoorProcess, device: Device):
    async def whole(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)
        assert b"Connection: close\r\n" in answer
        writer.close()
        return answer

    host = f"Host: 127.0.0.1:{door.port}\r\n".encode()
    body = b'{"command": "reboot", "data": "' + b"x" * 65_536 + b'"}'
    lies = b"POST /command HTTP/1.1\r\n" + host + b"Content-Length: 70000\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (1000, body[at : at + 1000].ljust(1000)) for at in range(0, len(body), 1000))
    for request in (
        b"POST /command HTTP/1.1\r\n" + host + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        lies,
        b"POST /command HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        b"GET /command/reboot HTTP/1.1\r\n" + host + b"X: " + b"y" * 66_000 + b"\r\n\r\n",
        b"GET /command/reboot HTTP/1.1\r\n" + host + b"".join(b"X%d: y\r\n" % n for n in range(9000)) + b"\r\n",
        b"GET /command/reboot%20" + b"y" * 66_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
    ):
        answer = await whole(request)
        assert answer.startswith(b"HTTP/1.1 413 "), request[:80]
        assert b"nothing was done" in answer
    assert not device.power.reboots
    # Just below the limit it is a request like any other, also if the connection has carried much before.
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    for _ in range(3):
        fits = b'{"command": "version", "other": "' + b"x" * 60_000 + b'"}'
        writer.write(b"POST /command HTTP/1.1\r\n" + host + b"Content-Length: %d\r\n\r\n" % len(fits) + fits)
        assert (await asyncio.wait_for(reader.readuntil(b"}"), 10)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_compressed_body_is_not_unpacked(client: aiohttp.ClientSession, device: Device):
    import zlib

    bomb = zlib.compress(b'{"command": "reboot"}' + b" " * 50_000_000)
    assert len(bomb) < 65_000
    status, _ = await post(client, bomb, headers={"Content-Encoding": "deflate"})
    assert status == 400
    assert not device.power.reboots


async def test_commands_at_the_same_time_wait_for_their_turn(client: aiohttp.ClientSession, device: Device):
    device.dms.delay_s = 0.2
    answers = await asyncio.gather(*(get(client, "/command/dms status") for _ in range(8)), get(client, "/command/ver"))
    assert [(status, answer["code"]) for status, answer in answers] == [(200, 0)] * 9
    assert len({answer["id"] for _, answer in answers}) == 9


async def test_what_a_client_left_behind_frees_its_place(door: DoorProcess):
    async with aiohttp.ClientSession(door.url) as client:
        waiting = [asyncio.create_task(get(client, "/command/events")) for _ in range(3)]
        await asyncio.sleep(1.0)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with asyncio.timeout(8):
            assert (await get(client, "/command/ver"))[0] == 200


async def test_bytes_go_behind_the_line_in_a_session_of_one_line(tmp_path):
    path = tmp_path / "console.sock"
    content = bytes(range(256)) * 8
    answers = (b"R000014\r\nFile created\r\n", b"R000006\r\n\xff\x00\xfea\r\n")
    async with (
        scripted_console(path, *answers) as heard,
        door_process(Config(console=str(path))) as door,
        aiohttp.ClientSession(door.url) as client,
    ):
        coded = base64.encodebytes(content).decode()
        body = {"command": "file_create a.bin 2048", "flags": 4, "data": coded}
        assert (await post(client, body))[1]["response"] == "File created\r\n"
        await asyncio.sleep(0.05)
        assert heard[0] == b"\0once\nfile_create a.bin 2048\r\n" + content
        # Bytes that are no text come coded, and say so.
        status, answer = await get(client, "/command/read 0 4")
        assert (status, answer["flags"]) == (200, 2)
        assert base64.b64decode(answer["response"]) == b"\xff\x00\xfea\r\n"
        assert heard[1] == b"\0machine\nread 0 4\r\n"


async def test_the_daemon_is_not_there_or_breaks_off_or_babbles(tmp_path):
    path = tmp_path / "console.sock"
    async with door_process(Config(console=str(path))) as door, aiohttp.ClientSession(door.url) as client:
        status, answer = await get(client, "/command/version")
        assert (status, list(answer)) == (503, ["error"])
        async with scripted_console(path, b"what is this?\r\n", b"L000002\r\na\r\nR000009\r\nSuccess\r\n"):
            assert (await get(client, "/command/version"))[0] == 503
            # A log block whose size is wrong is noticed, not waited for.
            assert (await get(client, "/command/version"))[0] == 503


async def test_log_lines_beside_an_answer_are_bounded(tmp_path):
    path = tmp_path / "console.sock"
    block = b"L004096\r\n" + b"x" * 4094 + b"\r\n"
    last = b"L000008\r\nat last\r\n"[:9] + b"at las\r\n"
    text = block * 500 + last + b"R100016\r\nCommand failed\r\n"
    async with (
        scripted_console(path, text),
        door_process(Config(console=str(path))) as door,
        aiohttp.ClientSession(door.url) as client,
    ):
        status, answer = await get(client, "/command/ota")
    assert (status, answer["code"]) == (200, 1)
    assert answer["log"][-1] == "at las"
    assert sum(map(len, answer["log"])) <= 32 * 1024


async def test_log(tmp_path):
    path = tmp_path / "console.sock"
    answers = (b"R000012\r\none\r\ntwo\r\n\r\n", b"R300017\r\nUnknown command\r\n")
    async with (
        scripted_console(path, *answers),
        door_process(Config(console=str(path))) as door,
        aiohttp.ClientSession(door.url) as client,
    ):
        assert await get(client, "/log") == (200, {"logs": ["one", "two", ""]})
        assert (await get(client, "/log"))[0] == 501
