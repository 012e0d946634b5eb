"""Files and streams by HTTP, as their commands are used over several requests."""

import asyncio
import base64
import os

import aiohttp
from aiohttp import WSMsgType

from tests.support.fakes import Device

CONTENT = os.urandom(40_000)


async def post(client: aiohttp.ClientSession, line: str, data: bytes = b"") -> tuple[int, bytes]:
    body = {
        "command": base64.b64encode(line.encode()).decode(), "flags": 7, "data": base64.b64encode(data).decode(),
    }  # fmt: skip
    async with client.post("/command", json=body) as response:
        assert response.status == 200
        answer = await response.json()
    return answer["code"], base64.b64decode(answer["response"])


async def test_a_file_goes_in_and_comes_out(client: aiohttp.ClientSession, device: Device):
    assert (await post(client, f"file_create data.bin {len(CONTENT)}", CONTENT))[0] == 0
    code, handle = await post(client, "file_open data.bin")
    assert code == 0
    found = b""
    while len(found) < len(CONTENT):
        code, part = await post(client, f"read {handle.decode().strip()} 10000")
        assert code == 0
        found += part.removesuffix(b"\r\n")
    assert found == CONTENT
    assert (await post(client, f"close {handle.decode().strip()}"))[0] == 0


async def test_what_a_refused_command_leaves_is_no_command(client: aiohttp.ClientSession, device: Device):
    for line in (
        "file_create ../x 10",
        "file_create x 99999999999",
        "write 77 9",
        "version",
        "nonsense",
        "file_create x",
    ):
        code, _ = await post(client, line, b"\r\nreboot\r\nreboot\r\n")
        assert code == 0 if line == "version" else code
    code, _ = await post(client, "file_create x 3", b"abc\r\nreboot\r\n")
    assert code == 0
    await asyncio.sleep(0.3)
    assert not device.power.reboots


async def test_a_file_through_a_socket(client: aiohttp.ClientSession):
    code, handle = await post(client, f"file_create -o in.bin {len(CONTENT)}")
    assert code == 0
    async with client.ws_connect(f"/stream?handle={handle.decode().strip()}") as ws:
        await ws.send_bytes(CONTENT)
        while (await ws.receive(timeout=20)).type is WSMsgType.BINARY:
            pass
    code, handle = await post(client, "file_open in.bin")
    assert code == 0
    found = b""
    async with client.ws_connect(f"/stream?handle={handle.decode().strip()}") as ws:
        while (message := await ws.receive(timeout=20)).type is WSMsgType.BINARY:
            found += message.data
    assert (found, message.extra) == (CONTENT, "the stream has ended")


async def test_the_log_is_the_devices_own(client: aiohttp.ClientSession):
    async with client.get("/log") as response:
        assert response.status == 200
        assert isinstance((await response.json())["logs"], list)
