"""The HTTP door on the real board, in one boot: started by the first connection, without rights, with a password, with TLS."""

import asyncio
import base64
import http.client
import json
import ssl
import time
from pathlib import Path

import aiohttp
import pytest

from scripts.board_driver.watched import WatchedBoard
from scripts.lab.places import PRODUCT
from scripts.lab.world import World
from tests.board.conftest import BoardFactory
from tests.board.disks import board_from

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]

PIDS = (
    "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q -- '-m [z]entrid.http' && echo ${p##*/}; done; true"
)
WAIT_S = 60.0


class Web:
    """Requests to the board."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.headers: dict[str, str] = {}
        self.tls: ssl.SSLContext | None = None

    def get(self, path: str) -> tuple[int, str]:
        """GET `path`; return status and body, or the place that a redirect names."""
        if self.tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=WAIT_S, context=self.tls)
        try:
            connection.request("GET", path, headers=self.headers)
            answer = connection.getresponse()
            body = answer.read().decode()
            return answer.status, answer.headers.get("Location") or body
        finally:
            connection.close()

    def post(self, body: bytes, **headers: str) -> int:
        """POST to /command; return the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("POST", "/command", body=body, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def send(self, line: str) -> str:
        """Carry out a command that succeeds; return its response."""
        status, body = self.get("/command/" + line.replace(" ", "%20"))
        answer = json.loads(body)
        assert (status, answer.get("code")) == (200, 0), body
        return str(answer["response"]).strip()

    def wait_for(self, status: int, path: str = "/command/version") -> None:
        """Wait until a request is answered like this."""
        give_up_s = time.monotonic() + WAIT_S
        while True:
            try:
                found: object = self.get(path)[0]
            except (OSError, http.client.HTTPException) as error:
                found = error
            if found == status:
                return
            assert time.monotonic() < give_up_s, found
            time.sleep(0.5)


async def terminal(port: int) -> str:
    """Carry out `version` in the WebSocket terminal; return what it has shown."""
    async with aiohttp.ClientSession() as client, client.ws_connect(f"http://127.0.0.1:{port}/terminal") as ws:
        shown = ""
        while not shown.endswith("> "):
            shown += await ws.receive_str(timeout=WAIT_S)
        await ws.send_str("get system.boot.slot\r")
        while not shown.endswith("a\r\n> "):
            shown += await ws.receive_str(timeout=WAIT_S)
        return shown


def rss_kib(board: WatchedBoard, pid: str) -> int:
    return int(board.succeed(f"grep VmRSS /proc/{pid}/status").split()[1])


def test_in_one_boot(board: BoardFactory, prepared: Path, world: World) -> None:
    one = board_from(board, world, prepared)
    one.wait_for_healthy()
    web = Web(one.up().http_port)
    faults = one.send("get system.fault.count").expect_ok()
    # Nothing runs, and nothing has run, until somebody comes.
    assert one.succeed(PIDS) == ""
    [supervisor] = one.succeed(
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q -- '-m [z]entrid $' && echo ${p##*/}; done; true"
    ).split()
    before_kib = rss_kib(one, supervisor)
    started_s = time.monotonic()
    assert f"{PRODUCT}-1.0.0" in web.send("version")
    first_s = time.monotonic() - started_s
    started_s = time.monotonic()
    web.send("version")
    next_s = time.monotonic() - started_s
    [pid] = one.succeed(PIDS).split()
    print(
        f"first answer {first_s:.1f} s, next {next_s:.2f} s; process {rss_kib(one, pid)} KiB; "
        f"supervisor {before_kib} KiB before, {rss_kib(one, supervisor)} KiB after"
    )
    # It is nobody, and sees nothing of the device but the command line.
    facts = dict(line.split(":\t", 1) for line in one.succeed(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert set(facts["Uid"].split()) == {"902"}
    assert set(facts["Gid"].split()) == {"1000"}
    assert facts["Groups"].strip() == ""
    assert {facts[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
    assert one.succeed(f"cat /proc/{pid}/oom_score_adj").strip() == "500"
    assert "Max processes             0 " in one.succeed(f"cat /proc/{pid}/limits")
    links = one.succeed(f"ls -l /proc/{pid}/fd")
    assert "/identity" not in links
    assert "/dev/vd" not in links
    # The library there is another version than the tests' own: WebSockets, limits, pages of other sites.
    assert "get system.boot.slot\r\na\r\n" in asyncio.run(terminal(web.port))
    assert web.post(b'{"command": "reboot", "data": "' + b"x" * 66_000 + b'"}') == 413
    assert web.post(b'{"command": "reboot"}', Origin="http://evil.example") == 403
    # Its end is nobody's fault, and the next connection starts it again.
    one.succeed(f"kill -9 {pid}")
    web.wait_for(200)
    assert one.succeed(PIDS).split() != [pid]
    assert one.send("get system.fault.count").expect_ok() == faults
    # The Web App is there by itself; without a first page, the page of the image; with one of the owner's, that.
    web.wait_for(200, "/")
    assert "js/app.js" in web.get("/")[1]
    web.send("set http.server.root_filename own/index.html")
    web.wait_for(302, "/")
    assert web.get("/") == (302, "/.recovery.html")
    assert web.get("/.recovery.html")[0] == 200
    one.succeed("mkdir -p /data/zentri/files/own && echo hello > /data/zentri/files/own/index.html")
    web.send("set http.server.root_filename own/index.html")
    web.wait_for(200, "/")
    assert web.get("/") == (200, "hello\n")
    # The first password, and HTTPS by the device's own certificate: both set by HTTP itself, whose answer still comes.
    web.send("set http.server.username admin")
    web.send("set http.server.password geheim")
    web.wait_for(401)
    web.headers["Authorization"] = "Basic " + base64.b64encode(b"admin:geheim").decode()
    web.send("set http.server.port 80")
    web.send("set http.server.tls_enabled 1")
    web.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    web.tls.check_hostname = False
    web.tls.verify_mode = ssl.CERT_NONE
    web.wait_for(200)
    shown = ssl.get_server_certificate(("127.0.0.1", web.port))
    own = one.succeed("cat /identity/device.crt")
    assert ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(
        own[own.index("-----BEGIN") :].split("-----END")[0] + "-----END CERTIFICATE-----\n"
    )
    [pid] = one.succeed(PIDS).split()
    assert one.succeed(f"grep -c zentri-web /etc/passwd; grep Uid /proc/{pid}/status").split()[2] == "902"
    # Off is off: nothing listens, nothing runs.
    web.send("set http.server.enabled 0")
    one.wait_until_succeeds("! netstat -ltn | grep -q ':80 '")
    one.wait_until_succeeds(f'[ -z "$({PIDS})" ]')
    assert one.send("get http.server.password").expect_ok().strip() == "********"
    assert one.send("get system.boot.good").expect_ok().strip() == "1"
