"""Requests and WebSocket frames with random changes, against the real process: it stays, says nothing, serves others."""

import asyncio
import random
from contextlib import suppress

import aiohttp

from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess

BODY = b'{"command": "dmVyc2lvbg==", "flags": 7, "data": "AAECAw=="}'
SEEDS = (
    b"GET /command/get%20sy%20u HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Mozilla/5.0\r\nOrigin: http://127.0.0.1\r\n\r\n",
    b"POST /command HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
    b"POST /command HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    b"GET /index.html HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=0-5\r\nIf-None-Match: \"1\"\r\n\r\n",
    b"GET /terminal HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\x82\x85\0\0\0\0ver\r\n\x81\x80\0\0\0\0\x88\x80\0\0\0\0",
)  # fmt: skip


def changed(dice: random.Random) -> bytes:
    """Return one of the seeds with a few changes."""
    data = bytearray(dice.choice(SEEDS))
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(data))
        kind = dice.randrange(4)
        if kind == 0:
            data[at] = dice.randrange(256)
        elif kind == 1:
            del data[at : at + dice.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = dice.choice(
                (dice.randbytes(8), b"\r\n", b"9" * 30, data[at : at + 40], b"\0" * 9, b"%2e%2e/")
            )
        else:
            data[at : at + 2] = dice.randbytes(2)
        data = data or bytearray(b"x")
    return bytes(data)


async def send(port: int, data: bytes, wait_s: float = 0.3) -> bytes:
    """Send bytes; return the beginning of what comes back within a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(wait_s):
                return await reader.read(4096)
        return b""
    finally:
        writer.transport.abort()


async def test_headers_that_are_no_text(door: DoorProcess):
    for header in (b"Upgrade: web\xffsocket", b"Origin: \xe7\x95", b"Authorization: Basic \xff", b"Range: bytes=\xff"):
        handshake = SEEDS[4].partition(b"\r\n\r\n")[0] + b"\r\n" + header + b"\r\n\r\n"
        answer = await send(door.port, handshake.replace(b"Upgrade: websocket\r\n", b""), wait_s=20)
        assert answer.startswith(b"HTTP/1.1 400 "), header


async def test_changed_requests(door: DoorProcess, client: aiohttp.ClientSession, device: Device):
    await send(door.port, SEEDS[0], wait_s=20)  # the process is there
    dice = random.Random(5)
    answers: list[bytes] = []
    for _ in range(40):
        answers += await asyncio.gather(*(send(door.port, changed(dice)) for _ in range(10)))
    statuses = {answer.split(b" ")[1] for answer in answers if answer.startswith(b"HTTP/1.1 ")}
    assert statuses >= {b"200", b"400", b"404"}
    assert b"500" not in statuses
    assert door.process.returncode is None
    async with asyncio.timeout(10):
        while True:
            async with client.get("/command/get%20sy%20u") as response:
                if response.status == 200:
                    assert (await response.json())["response"] == device.ctx.identity.uuid + "\r\n"
                    break
            await asyncio.sleep(0.3)  # too many requests just now
