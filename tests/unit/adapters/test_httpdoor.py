"""The keeper of the HTTP door: no process until somebody comes, changed settings, processes that fail, sockets that are taken."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from tests.support.fakes import Device
from zentrid.adapters import httpdoor
from zentrid.adapters.httpdoor import HttpDoor, Plan, plan_of
from zentrid.adapters.setupmode import SetupMode
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import Values

# Answers each connection with what it was told last; ends with its input, or when it is told so.
CHILD = """
import json, os, select, socket, sys
config = json.loads(sys.stdin.buffer.readline())
listener = socket.socket(fileno=config["http_fd"])
buffer = b""
while True:
    ready, _, _ = select.select([0, listener], [], [])
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            sys.exit(0)
        buffer += data
        *lines, buffer = buffer.split(b"\\n")
        config = json.loads(lines[-1]) if lines else config
    if listener in ready:
        connection, _ = listener.accept()
        word = connection.recv(100).decode()
        if word == "crash":
            sys.exit("it has crashed")
        if word == "bye":
            sys.exit(0)
        connection.sendall(json.dumps({**config, "pid": os.getpid()}).encode())
        connection.close()
"""


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpdoor, "SETTLE_S", 0.05)
    monkeypatch.setattr(httpdoor, "BIND_AGAIN_S", 0.2)


class Kept:
    """A keeper with settings of its own."""

    def __init__(self, child: str, **options) -> None:
        self.values = Values(VARIABLES)
        self.bound: list[tuple[int, str]] = []
        self.ports: dict[int, int] = {}
        self.refuse = False
        self.taken: set[int] = set()
        self.door = HttpDoor(
            lambda: plan_of(self.values, identity=Path("/identity"), setup=False, safe_mode=False),
            argv=(sys.executable, "-c", child),
            bind=self._bind,
            **options,
        )
        self.door.follow(self.values)

    def _bind(self, port: int, interface: str) -> socket.socket:
        if self.refuse or port in self.taken:
            raise OSError(98, "Address already in use")
        self.bound.append((port, interface))
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.ports[port] = listener.getsockname()[1]
        return listener

    async def say(self, word: str, port: int = 80) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[port])
        try:
            writer.write(word.encode())
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def told(self, port: int = 80) -> dict[str, object]:
        found: dict[str, object] = json.loads(await self.say("what", port))
        return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def keeping(child: str = CHILD, **options) -> AsyncIterator[Kept]:
    with blockbuster_ctx("zentrid"):
        kept = Kept(child, **options)
        task = asyncio.create_task(kept.door.run())
        try:
            await until(lambda: bool(kept.bound) or task.done())
            yield kept
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_no_process_until_somebody_comes_and_settings_reach_it_at_once(fast: None):
    async with keeping() as kept:
        kept.values.set("http.server.username", "admin")
        await asyncio.sleep(0.3)
        assert kept.door.starts == 0
        first = await kept.told()
        assert (first["username"], first["password"], first["certificate"]) == ("admin", "", "")
        kept.values.set("http.server.password", "secret")
        await asyncio.sleep(0.3)
        second = await kept.told()
        assert (second["password"], second["pid"]) == ("secret", first["pid"])
        assert kept.door.starts == 1
        assert kept.bound == [(80, "all")]
        # It ends by itself when nobody comes; the next one who does starts it again, and nothing is said about it.
        await kept.say("bye")
        assert (await kept.told())["pid"] != first["pid"]
        assert kept.door.starts == 2


async def test_other_sockets_mean_another_process_and_off_is_off(fast: None):
    async with keeping() as kept:
        first = await kept.told()
        kept.values.set("http.server.tls_enabled", True)
        await until(lambda: len(kept.bound) == 2)
        second = await kept.told(443)
        assert kept.bound[1] == (443, "all")
        assert (second["certificate"], second["key"]) == ("/identity/device.crt", "/identity/device.key")
        assert second["pid"] != first["pid"]
        assert await asyncio.to_thread(Path(f"/proc/{first['pid']}").exists) is False
        with pytest.raises(ConnectionRefusedError):
            await kept.say("what", 80)
        kept.values.set("http.server.port", 8080)
        kept.values.set("http.server.interface", "local")
        kept.values.set("remote_terminal.enabled", True)
        await until(lambda: (2000, "local") in kept.bound)
        assert kept.bound[-2:] == [(8080, "local"), (2000, "local")]
        assert (await kept.told(8080))["terminal_fd"] != -1
        kept.values.set("remote_terminal.enabled", False)
        kept.values.set("http.server.enabled", False)
        await asyncio.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            await kept.say("what", 8080)


async def test_a_process_that_fails_is_started_again_after_a_pause_and_its_words_are_kept(
    fast: None, caplog: pytest.LogCaptureFixture
):
    async with keeping(pauses_s=(0.1, 0.2, 0.4)) as kept:
        for _ in range(3):
            await kept.say("crash")
        assert (await kept.told())["pid"]
    assert kept.door.starts == 4
    text = caplog.text
    assert text.count("it has crashed") == 3
    assert [f"started again in {pause:g} s" in text for pause in (0.1, 0.2, 0.4)] == [False, True, True]


async def test_a_changed_setting_does_not_wait_for_the_pause(fast: None):
    async with keeping(pauses_s=(60, 60)) as kept:
        await kept.say("crash")
        await asyncio.sleep(0.2)
        kept.values.set("http.server.port", 83)
        await until(lambda: (83, "all") in kept.bound)
        assert (await kept.told(83))["pid"]


async def test_a_talkative_process_does_not_fill_the_log(fast: None, caplog: pytest.LogCaptureFixture):
    talks = CHILD.replace('word == "crash"', 'word == "crash" and not [print(n, file=sys.stderr) for n in range(5000)]')
    async with keeping(talks, pauses_s=(0.1,)) as kept:
        await kept.say("crash")
        assert (await kept.told())["pid"]
    assert caplog.text.count("HTTP door: ") == httpdoor.MAX_LINES


async def test_a_process_that_cannot_be_started_does_not_end_the_supervisor(
    fast: None, caplog: pytest.LogCaptureFixture
):
    async with keeping(pauses_s=(0.1, 0.2)) as kept:
        kept.door._argv = ("/nowhere/at/all",)
        reader, writer = await asyncio.open_connection("127.0.0.1", kept.ports[80])
        await until(lambda: "cannot be started" in caplog.text)
        writer.close()
        del reader
    assert "cannot be started" in caplog.text


async def test_a_mistake_in_the_keeper_is_not_the_end_of_the_supervisor(fast: None, caplog: pytest.LogCaptureFixture):
    async with keeping(pauses_s=(0.1,)) as kept:
        good, kept.door._plan = kept.door._plan, lambda: 1 // 0  # type: ignore[assignment, return-value]
        kept.door.look_again()
        await until(lambda: "ZeroDivisionError" in caplog.text)
        kept.door._plan = good
        await until(lambda: len(kept.bound) == 2)
        assert (await kept.told())["pid"]


async def test_a_port_that_is_taken_is_tried_again(fast: None, caplog: pytest.LogCaptureFixture):
    async with keeping() as kept:
        kept.refuse = True
        kept.values.set("http.server.port", 81)
        await until(lambda: "port 81 cannot be opened (Address already in use)" in caplog.text)
        await asyncio.sleep(0.6)
        assert caplog.text.count("cannot be opened") == 1
        kept.refuse = False
        await until(lambda: (81, "all") in kept.bound)
        assert (await kept.told(81))["pid"]


async def test_a_terminal_port_that_is_taken_leaves_the_web_server(
    fast: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(httpdoor, "MISSING_AGAIN_S", 0.4)
    async with keeping() as kept:
        kept.taken = {22}
        kept.values.set("remote_terminal.port", 22)
        kept.values.set("remote_terminal.enabled", True)
        await until(lambda: "port 22 cannot be opened" in caplog.text)
        assert (await kept.told())["pid"]
        await kept.say("bye")
        await asyncio.sleep(1)
        assert caplog.text.count("port 22 cannot be opened") == 1
        kept.taken = set()
        await until(lambda: (22, "all") in kept.bound)
        assert (await kept.told())["terminal_fd"] != -1


async def test_settings_that_are_made_in_a_row_take_effect_after_the_last(fast: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(httpdoor, "SETTLE_S", 0.4)
    async with keeping() as kept:
        await kept.told()
        for name in "abcd":
            kept.values.set("http.server.username", name)
            await asyncio.sleep(0.25)
            assert (await kept.told())["username"] == ""
        await asyncio.sleep(0.8)
        assert (await kept.told())["username"] == "d"


async def test_the_process_that_does_not_end_is_killed(fast: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(httpdoor, "END_S", 0.3)
    deaf = CHILD.replace("sys.exit(0)", "__import__('time').sleep(100)")
    async with keeping(deaf) as kept:
        pid = (await kept.told())["pid"]
        kept.values.set("http.server.port", 82)
        await until(lambda: (82, "all") in kept.bound)
        assert await asyncio.to_thread(Path(f"/proc/{pid}").exists) is False


@pytest.mark.parametrize("interface", ["all", "local"])
def test_both_protocols_are_listened_to(interface: str):
    with httpdoor.listen(0, interface) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()
        accepted, peer = listener.accept()
        accepted.close()
        assert peer[0] in ("::ffff:127.0.0.1", "127.0.0.1")


def test_set_up_opens_what_is_off(tmp_path: Path):
    values = Values(VARIABLES)
    values.set("http.server.enabled", False)
    assert not plan_of(values, identity=tmp_path, setup=False, safe_mode=False).open
    plan = plan_of(values, identity=tmp_path, setup=True, safe_mode=True)
    assert (plan.http_port, plan.config.setup, plan.config.safe_mode) == (80, True, True)
    assert not Plan().open


async def test_set_up_mode_ends_by_itself(tmp_path: Path):
    heard: list[bool] = []
    mode = SetupMode(lambda: 0.1, lambda: heard.append(mode.on))
    mode.start()
    assert (mode.on, mode.left_s > 0) == (True, True)
    await asyncio.sleep(0.2)
    assert (mode.on, mode.left_s) == (False, 0)
    mode.stop()
    assert heard == [True, False]


async def test_the_setup_command(tmp_path: Path):
    from tests.support.console import Caller

    device = Device(tmp_path / "zentri")
    caller = Caller(device)
    device.ctx.setup = None
    assert (await caller("setup web")).code == 1
    device.ctx.setup = SetupMode(lambda: device.settings.values.number("setup.web.timeout"), lambda: None)
    assert await caller.body("setup") == "off"
    assert await caller.body("setup web") == "on for 900 s more; open http://10.0.2.15/ in a browser"
    device.settings.values.set("http.server.tls_enabled", True)
    device.settings.values.set("http.server.port", 8443)
    assert "https://10.0.2.15:8443/" in await caller.body("setup status")
    device.settings.values.set("http.server.port", 0)
    assert "https://10.0.2.15/" in await caller.body("setup status")
    device.settings.values.set("http.server.port", 80)
    assert "https://10.0.2.15:80/" in await caller.body("setup status")
    assert await caller.body("setup stop") == "Success"
    assert await caller.body("setup") == "off"
    assert (await caller("setup nonsense")).code == 7
