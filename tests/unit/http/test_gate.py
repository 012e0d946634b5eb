"""Connections from outside: readers that take nothing, TLS, and the end of the process when nobody comes."""

import asyncio
import datetime
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.commandline import console
from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess, door_process, listening
from tests.unit.http.conftest import basic
from zentrid.core.places import Place
from zentrid.http.config import Config, config_from_line
from zentrid.http.gate import MAX_WAITING, Gate, Listener


async def test_a_reader_that_takes_nothing_is_cut_off():
    ended = asyncio.Event()

    async def serve(connection: socket.socket, _peer: str, _place: Place) -> None:
        _reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        finally:
            writer.transport.abort()
            ended.set()

    with listening() as one, socket.create_connection(one.getsockname()) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        task = asyncio.create_task(Listener(one, serve, stall_s=0.5).run())
        try:
            await asyncio.wait_for(ended.wait(), 15)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Unbounded(asyncio.Protocol):
    """Parses requests and lets any number of them wait, as some versions of the library do."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self.most = 0

    def data_received(self, data: bytes) -> None:
        self._messages += [b""] * data.count(b"\r\n\r\n")
        self.most = max(self.most, len(self._messages))

    def next(self, gate: Gate) -> None:
        """Begin a request and answer it."""
        self._messages.pop()
        gate.handling()
        gate.answered()


async def test_requests_that_wait_are_bounded_however_fast_they_are_answered():
    inner, request = Unbounded(), b"GET / HTTP/1.1\r\n\r\n"
    here, there = socket.socketpair()
    with there:
        there.setblocking(False)
        made = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Gate(inner, {}, 9.0, Place("a", 0.0)), here
        )
        gate = made[1]
        for _ in range(3):  # a client that sends a few ahead is served
            gate.data_received(request * MAX_WAITING)
            for _ in range(MAX_WAITING):
                inner.next(gate)
        assert not made[0].is_closing()
        for _ in range(100):
            gate.data_received(request * 3)
            inner.next(gate)
            if made[0].is_closing():
                break
        assert inner.most <= MAX_WAITING + 3
        assert made[0].is_closing()
        await asyncio.wait_for(gate.ended.wait(), 5)
        assert await asyncio.get_running_loop().sock_recv(there, 100) == b""


async def test_the_library_tells_how_many_requests_wait(door: DoorProcess):
    """The bound stands on a name inside the library: here it shows if that is gone."""
    server = web.Server(lambda _request: web.Response())  # type: ignore[arg-type, return-value]
    assert len(server()._messages) == 0
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    one = f"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\n\r\n".encode()
    writer.write(one * 5)
    async with asyncio.timeout(10):
        for _ in range(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
            await reader.readexactly(len(b'{"error": "there is nothing here"}'))
    writer.close()


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(5)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    (tmp_path / "device.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (tmp_path / "device.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    return tmp_path


async def test_https(device: Device, identity: Path, tmp_path: Path):
    trust = ssl.create_default_context(cafile=identity / "device.crt")
    trust.check_hostname = False
    async with console(device, tmp_path / "console.sock") as path:
        config = Config(
            console=str(path), username="u", password="p",
            certificate=str(identity / "device.crt"), key=str(identity / "device.key"),
        )  # fmt: skip
        connector = aiohttp.TCPConnector(ssl=trust)
        async with door_process(config) as door, aiohttp.ClientSession(door.url, connector=connector) as client:
            async with client.get("/command/ver", headers=basic("u", "p")) as response:
                assert (response.status, (await response.json())["code"]) == (200, 0)
            page = {"User-Agent": "Mozilla/5.0", "Origin": door.url.replace("https", "http")}
            async with client.get("/command/ver", headers=basic("u", "p") | page) as response:
                assert response.status == 403
            async with client.get("/command/ver", headers=basic("u", "p") | {"Origin": door.url}) as response:
                assert response.status == 200
            async with client.ws_connect("/terminal", headers=basic("u", "p")) as ws:
                assert "DEMO-VIRT" in await ws.receive_str(timeout=10)
            # Who does not speak TLS is not spoken to.
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            writer.write(b"GET /command/ver HTTP/1.1\r\nHost: a\r\n\r\n")
            with suppress(ConnectionError):
                assert b"HTTP" not in await asyncio.wait_for(reader.read(), 15)
            writer.close()


async def test_it_ends_when_nobody_comes_and_stays_while_passwords_are_guessed(tmp_path: Path):
    config = Config(console=str(tmp_path / "none"), idle_s=1.0)
    async with door_process(config) as door:
        async with asyncio.timeout(15):
            assert await door.process.wait() == 0
    async with door_process(Config(console=str(tmp_path / "none"), idle_s=1.0, username="u", password="p")) as door:
        async with aiohttp.ClientSession(door.url) as client, client.get("/", headers=basic("u", "wrong")) as response:
            assert response.status == 401
        await asyncio.sleep(3)
        assert door.process.returncode is None


def test_what_the_process_is_told():
    config = Config(username="ü", hostname="a b", cors_origin="http://c", setup=True)
    assert config_from_line(config.to_line()) == config
    assert (config.names, config.origins) == (("a", "b"), ("http://c",))
    for line in (b"", b"[]", b'{"unknown": 1}'):
        with pytest.raises((ValueError, TypeError)):
            config_from_line(line)
