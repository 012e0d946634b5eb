"""The command line in a WebSocket and over TCP, and streams in a WebSocket."""

import asyncio

import aiohttp
import pytest
from aiohttp import WSMsgType

from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess, door_process
from tests.unit.http.conftest import basic
from zentrid.http.config import Config

VERSION = "DEMO-VIRT_SENSOR-1.4.0, 2026-11-01T10:00:00Z, Zentri-1.4.0, Board:virt\r\n"


async def text_until(ws: aiohttp.ClientWebSocketResponse, part: str) -> str:
    text = ""
    while part not in text:
        text += await ws.receive_str(timeout=10)
    return text


async def test_a_person_at_the_web_terminal(client: aiohttp.ClientSession, device: Device):
    async with client.ws_connect("/terminal") as ws:
        assert await text_until(ws, "> ") == VERSION + "> "
        await ws.send_str("set system.name grün\r")
        assert "grün" in await text_until(ws, "Set OK\r\n")
        await ws.send_str("events\r")
        await asyncio.sleep(0.3)
        await ws.send_bytes(b"\x03")
        await text_until(ws, "> ")
    assert device.settings.values.text("system.name") == "grün"


async def test_a_program_at_the_web_terminal(client: aiohttp.ClientSession):
    async with client.ws_connect("/terminal?mode=machine") as ws:
        await ws.send_bytes(b"version\r\n")
        assert await ws.receive_bytes(timeout=10) == b"R000072\r\n" + VERSION.encode()


async def test_a_terminal_carries_more_than_one_request_may(client: aiohttp.ClientSession):
    async with client.ws_connect("/terminal?mode=machine") as ws:
        for _ in range(50):
            await ws.send_bytes(b"version" + b" " * 2000 + b"\r\n")
            assert await ws.receive_bytes(timeout=10) == b"R000072\r\n" + VERSION.encode()


async def test_terminals_are_few_and_end_with_the_account(door: DoorProcess, client: aiohttp.ClientSession):
    one = await client.ws_connect("/terminal")
    two = await client.ws_connect("/terminal")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect("/terminal")
    assert refused.value.status == 503
    await one.close()
    await asyncio.sleep(0.3)
    three = await client.ws_connect("/terminal")
    await door.tell(username="u", password="p")
    for ws in (two, three):
        while (message := await ws.receive(timeout=10)).type is WSMsgType.TEXT:
            pass
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect("/terminal")
    assert refused.value.status == 401
    async with client.ws_connect("/terminal", headers=basic("u", "p")) as ws:
        await text_until(ws, "> ")


async def test_a_message_that_is_too_large_ends_its_socket(client: aiohttp.ClientSession):
    async with client.ws_connect("/terminal?mode=machine") as ws:
        await ws.send_bytes(b"x" * 70_000)
        message = await ws.receive(timeout=10)
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
    async with client.get("/command/ver") as response:
        assert response.status == 200


async def tcp(door: DoorProcess):
    reader, writer = await asyncio.open_connection("127.0.0.1", door.terminal_port)
    return reader, writer


async def test_over_tcp(door: DoorProcess):
    await door.tell(username="admin", password="secret")
    reader, writer = await tcp(door)
    writer.write(b"admin\rsecret\r")
    assert VERSION.encode() in await asyncio.wait_for(reader.readuntil(b"\r\n> "), 10)
    writer.write(b"get system.uuid\r")
    assert b"6f1e3c52" in await asyncio.wait_for(reader.readuntil(b"7d11\r\n"), 10)
    writer.write(b"\x04")
    await asyncio.wait_for(reader.read(), 10)
    writer.close()


POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:2000\r\nOrigin: http://evil.example\r\n\r\nset system.name evil\r\n"


@pytest.mark.parametrize("sent", [POST, b"\x16\x03\x01\x02\n\n\r\n\r\n", b"\x00\x03\x00\n\n"])
async def test_over_tcp_a_page_neither_commands_nor_guesses(door: DoorProcess, device: Device, sent: bytes):
    before = device.settings.values.text("system.name")
    for account in ({}, {"username": "admin", "password": "secret"}):
        await door.tell(**account)
        for _ in range(8):
            reader, writer = await tcp(door)
            writer.write(sent)
            try:
                said = await asyncio.wait_for(reader.read(), 10)
            except ConnectionError:
                said = b""
            writer.close()
            assert said in (b"", b"User name: ", b"Set http.server.username and http.server.password first.\r\n")
    assert device.settings.values.text("system.name") == before
    reader, writer = await tcp(door)
    writer.write(b"admin\rsecret\r")
    await asyncio.wait_for(reader.readuntil(b"\r\n> "), 10)
    writer.close()


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
async def test_over_tcp_with_a_password(door: DoorProcess, end: bytes):
    await door.tell(username="admin", password="secret")
    reader, writer = await tcp(door)
    writer.write(b"admin" + end + b"wrong" + end)
    await asyncio.wait_for(reader.readuntil(b"Wrong user name or password.\r\n"), 10)
    writer.write(b"admin" + end + b"secret" + end)
    said = await asyncio.wait_for(reader.readuntil(b"> "), 10)
    assert VERSION.encode() in said
    assert b"secret" not in said
    writer.close()
    reader, writer = await tcp(door)
    writer.write(b"x" * 1000)
    assert b"> " not in await asyncio.wait_for(reader.read(), 10)
    writer.close()


# --- streams ------------------------------------------------------------------------------------------------------------
class StreamDaemon:
    """Understands `poll`, `read` and `write` of stream 3."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts
        self.written = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        while line := (await reader.readline()).split():
            writer.write(await self.answer(line, reader))
        writer.close()

    async def answer(self, words: list[bytes], reader: asyncio.StreamReader) -> bytes:
        if words[:2] == [b"poll", b"3"]:
            return b"R000003\r\n%d\r\n" % (1 if self.parts else 2 if self.written == b"end" else 0)
        if words[:2] == [b"read", b"3"]:
            part = self.parts.pop(0)
            return b"R0%05d\r\n%s\r\n" % (len(part) + 2, part)
        if words[:2] == [b"write", b"3"]:
            self.written += await reader.readexactly(int(words[2]))
            return b"R000009\r\nSuccess\r\n"
        return b"L000015\r\nno such thing\r\nR100016\r\nCommand failed\r\n"


async def test_a_stream_in_a_socket(tmp_path):
    path = tmp_path / "console.sock"
    daemon = StreamDaemon([b"\x00\xff" * 100, b"more\r\n"])
    server = await asyncio.start_unix_server(daemon.serve, path)
    async with server, door_process(Config(console=str(path))) as door, aiohttp.ClientSession(door.url) as client:
        async with client.get("/stream?handle=x") as response:
            assert response.status == 400
        async with client.ws_connect("/stream?handle=3") as ws:
            assert await ws.receive_bytes(timeout=10) == b"\x00\xff" * 100
            assert await ws.receive_bytes(timeout=10) == b"more\r\n"
            await ws.send_bytes(b"en")
            await ws.send_str("d")
            message = await ws.receive(timeout=10)
            assert (message.type, message.extra) == (WSMsgType.CLOSE, "the stream has ended")
        assert daemon.written == b"end"
        async with client.ws_connect("/stream?handle=4") as ws:
            assert (await ws.receive(timeout=10)).extra == "no such thing"
