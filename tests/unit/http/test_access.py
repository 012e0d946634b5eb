"""Who may command the device: passwords, lock-out, names, pages of other sites, other networks."""

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from tests.support.commandline import console
from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess, door_process
from tests.unit.http.conftest import basic
from zentrid.core.lockout import FREE_TRIES
from zentrid.core.places import Place
from zentrid.http.access import Access
from zentrid.http.config import Config
from zentrid.http.link import Links
from zentrid.http.terminal import Sockets, TcpTerminal

HERE = "10.0.2.15"
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"}


async def status(client: aiohttp.ClientSession, headers: dict[str, str], path: str = "/command/reboot", method="GET"):
    async with client.request(
        method, path, headers=headers, data=b'{"command": "reboot"}' if method == "POST" else None
    ) as r:
        return r.status


async def test_a_password_is_asked_for_once_there_is_one(door: DoorProcess, client: aiohttp.ClientSession):
    assert await status(client, {}, "/command/ver") == 200
    await door.tell(username="admin")  # half an account admits nobody, and keeps nobody out
    assert await status(client, {}, "/command/ver") == 200
    await door.tell(username="admin", password="gehe:im ü")
    for path in (
        "/",
        "/command/ver",
        "/js/app.js",
        "/.recovery.html",
        "/.recovery.json",
        "/log",
        "/terminal",
        "/nothing",
    ):
        async with client.get(path) as response:
            assert response.status == 401, path
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
    assert await status(client, basic("admin", "gehe:im ü"), "/command/ver") == 200
    for wrong in (
        basic("admin", ""), basic("", ""), basic("Admin", "gehe:im ü"),
        {"Authorization": "Basic !!!"}, {"Authorization": "Bearer x"},
    ):  # fmt: skip
        assert await status(client, wrong, "/command/ver") == 401, wrong
    await door.tell(username="", password="")
    assert await status(client, {}, "/command/ver") == 200


async def test_strangers_of_other_networks_wait_for_an_account():
    access = Access(Config())
    host = {"Host": "10.0.2.15"}
    for far in ("8.8.8.8", "2001:db8::1"):
        refused = await access.judge(far, host, local=HERE, acts=False)
        assert refused is not None
        assert refused.status == 403
        assert "http.server.username" in refused.sentence
    assert await access.judge("fe80::1%eth0", host, local=HERE, acts=True) is None
    access.config = Config(username="u", password="p")
    assert await access.judge("8.8.8.8", host | basic("u", "p"), local=HERE, acts=True) is None
    refused = await access.judge("127.0.0.1", host, local="127.0.0.1", acts=True)
    assert refused is not None
    assert refused.status == 401


async def test_the_device_itself_commands_nothing(device: Device, tmp_path: Path):
    """A redirect to the loopback, the application or a worker in wrong hands would else have the owner's rights."""
    access = Access(Config())
    for itself in ("127.0.0.1", "::1", "::ffff:169.254.7.7", "169.254.7.7"):
        refused = await access.judge(itself, {"Host": "169.254.7.7"}, local="169.254.7.7", acts=False)
        assert refused is not None, itself
        assert refused.status == 403
        assert "not to itself" in refused.sentence
    async with console(device, tmp_path / "console.sock") as path:
        config = Config(console=str(path))
        async with door_process(config, "zentrid.http") as door, aiohttp.ClientSession(door.url) as client:
            for agent in ({}, {"User-Agent": "zentrid/1.4.0"}):
                for there in ("/command/reboot", "/", "/log", "/terminal"):
                    assert await status(client, agent, there) == 403, there
                assert await status(client, agent, "/command", "POST") == 403
            reader, writer = await asyncio.open_connection("127.0.0.1", door.terminal_port)
            assert b"Set http.server.username" in await asyncio.wait_for(reader.read(), 10)
            writer.close()
            await door.tell(username="u", password="p")
            assert await status(client, basic("u", "p"), "/command/ver") == 200
    assert not device.power.reboots


async def test_nobody_gets_a_terminal_over_tcp_without_an_account():
    def unused(*_: object) -> None:
        raise AssertionError

    links = Links("/nowhere")
    terminal = TcpTerminal(Access(Config()), Sockets(links, unused), links)
    inside, outside = socket.socketpair()
    with inside, outside:
        outside.setblocking(False)
        inside.setblocking(False)
        await terminal.serve(inside, "10.0.2.2", Place("10.0.2.2", 0.0))
        assert (await asyncio.get_running_loop().sock_recv(outside, 1000)).startswith(b"Set http.server.username")


async def test_wrong_passwords_lock_their_sender_out(door: DoorProcess, client: aiohttp.ClientSession):
    await door.tell(username="admin", password="right")
    right = basic("admin", "right")
    for _ in range(FREE_TRIES * 2):
        assert await status(client, {}) == 401  # no password at all is no guess
    for _ in range(FREE_TRIES):
        # A right one between them forgives none: a guesser may share its address with the owner.
        assert await status(client, right, "/command/ver") == 200
        assert await status(client, basic("admin", "wrong")) == 401
    async with client.get("/command/ver", headers=right) as response:
        assert response.status == 429  # the right one is not looked at either: else guessing would go on
        assert 0 < int(response.headers["Retry-After"]) <= 31
    door.said = b"wrong passwords from 127.0.0.1: not listened to for 30 s\n"
    # At the TCP terminal too, since it is the same password.
    reader, writer = await asyncio.open_connection("127.0.0.1", door.terminal_port)
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"Too many wrong passwords")
    writer.close()


async def test_a_page_does_not_lock_the_owner_out():
    access = Access(Config(username="u", password="p"))
    host = {"Host": "10.0.2.15"}
    for headers in ({"Origin": "http://evil.example"}, {"Referer": "http://evil.example/"}, BROWSER):
        for acts in (True, False):
            for _ in range(FREE_TRIES * 2):
                await access.judge("127.0.0.1", host | headers | basic("u", "wrong"), local=HERE, acts=acts)
    refused = await access.judge(
        "127.0.0.1", host | {"Referer": "http://evil.example/"} | basic("u", "p"), local=HERE, acts=False
    )
    assert refused is not None
    assert refused.status == 429  # it is no way to go on guessing either
    own = BROWSER | {"Referer": "http://10.0.2.15/"}
    for headers in ({}, own):
        for acts in (True, False):
            assert await access.judge("127.0.0.1", host | headers | basic("u", "p"), local=HERE, acts=acts) is None


async def test_a_flood_of_requests_is_slowed_down():
    access = Access(Config())
    found = [
        await access.judge("169.254.2.9" if n else "169.254.2.8", {"Host": "10.0.2.15"}, local=HERE, acts=False)
        for n in range(300)
    ]
    refused = [one for one in found if one is not None and one.status == 429]
    assert len(refused) >= 50
    assert refused[0].headers["Retry-After"] == "1"
    # Others do not suffer.
    assert await access.judge("169.254.2.8", {"Host": "10.0.2.15"}, local=HERE, acts=False) is None


async def test_names_that_are_not_the_devices_own(door: DoorProcess, client: aiohttp.ClientSession, device: Device):
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "a@127.0.0.1", "127.0.0.1/x"):
        assert await status(client, {"Host": host}) in (400, 421), host
    for host in ("192.168.7.7", "[fe80::1]:80", "localhost:8080", f"127.0.0.1:{door.port}"):
        assert await status(client, {"Host": host}, "/command/ver") == 200, host
    await door.tell(hostname="boiler.example.com other.example")
    assert await status(client, {"Host": "Boiler.example.com:80"}, "/command/ver") == 200
    assert not device.power.reboots


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_page_of_another_site_commands_nothing(
    door: DoorProcess, client: aiohttp.ClientSession, device: Device, method: str
):
    path = "/command/reboot" if method == "GET" else "/command"
    own = door.url
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": own + "0"},
        {"Origin": own.replace("http:", "https:")},
        BROWSER,  # a page may keep all of it back: an image, a form, a link
        BROWSER | {"Referer": "http://evil.example/"},
        BROWSER | {"Referer": f"http://evil.example/{own}/"},
        BROWSER | {"Referer": own + ".evil.example/"},
        BROWSER | {"Sec-Fetch-Site": "cross-site"},
        BROWSER | {"Sec-Fetch-Site": "same-site"},
        BROWSER | {"Sec-Fetch-Site": "none"},
    ):
        assert await status(client, headers, path, method) == 403, headers
    assert not device.power.reboots
    for headers in (
        BROWSER | {"Origin": own},
        BROWSER | {"Referer": own + "/"},
        BROWSER | {"Sec-Fetch-Site": "same-origin"},
    ):
        assert await status(client, headers, path.replace("reboot", "ver"), method) == 200, headers
    for path in ("/terminal", "/stream?handle=0"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(path, headers={"Origin": "http://evil.example"})
        assert refused.value.status == 403


async def test_other_sites_only_if_the_owner_names_them(door: DoorProcess, client: aiohttp.ClientSession):
    app = "https://app.example.com"
    async with client.options("/command", headers={"Origin": app, "Access-Control-Request-Method": "POST"}) as response:
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers
    await door.tell(cors_origin=f"http://x.example:81 {app}", username="u", password="p")
    async with client.options("/command", headers={"Origin": app, "Access-Control-Request-Method": "POST"}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == app
        assert "authorization" in response.headers["Access-Control-Allow-Headers"].lower()
    async with client.get("/command/ver", headers={"Origin": app}) as response:
        assert response.status == 401
    async with client.get("/command/ver", headers={"Origin": app} | basic("u", "p")) as response:
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (200, app)
        assert response.headers["Vary"] == "Origin"
    async with client.options("/command", headers={"Origin": "https://evil.example"}) as response:
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_the_interface_can_be_off(door: DoorProcess, client: aiohttp.ClientSession, device: Device):
    await door.tell(api_enabled=False)
    assert await status(client, {}) == 403
    assert await status(client, {}, "/command", "POST") == 403
    assert await status(client, {}, "/terminal") == 403
    assert await status(client, {}, "/") == 200
    assert not device.power.reboots


async def test_headers_that_do_not_come_and_connections_that_are_many(door: DoorProcess):
    async def opened(address: str):
        return await asyncio.open_connection("127.0.0.1", door.port, local_addr=(address, 0))

    slow_reader, slow = await opened("127.0.0.2")
    slow.write(b"GET /command/reboot HTTP/1.1\r\nHost: ")
    many = [await opened("127.0.0.1") for _ in range(20)]
    async with asyncio.timeout(10):  # each further one takes the place of the oldest
        for reader, _ in many[:4]:
            assert await reader.read() == b""
    assert not any(reader.at_eof() for reader, _ in many[4:])
    for _, writer in many:
        writer.close()
    # The slow one gets its answer after 3 s, and not before the others were served.
    answer = await asyncio.wait_for(slow_reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 408 ")
    slow.close()
