"""The panel's page and its WebSocket: what it tells, what it does, and for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSServerHandshakeError

from scripts.board_driver.errors import MachineError
from scripts.board_driver.machine_mode import Answer
from scripts.panel import app as app_module
from scripts.panel import packages
from scripts.panel import status as status_module
from scripts.panel.app import FILES
from scripts.panel.desk import Look
from scripts.panel.status import Status, describe
from tests.unit.panel.conftest import Served, until


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


async def hear(socket: ClientWebSocketResponse, kind: str, **wanted: Any) -> dict[str, Any]:
    """Wait for news of a kind that holds all that is wanted."""
    async with asyncio.timeout(5):
        while True:
            news = await socket.receive_json()
            if news["kind"] == kind and all(news.get(name) == value for name, value in wanted.items()):
                return dict(news)


async def test_the_page_and_its_files_run_nothing_but_their_own(served: Served, client: ClientSession) -> None:
    for name in (*FILES, *packages.FILES):
        async with client.get(f"{served.url}/{name}") as response:
            assert response.status == 200
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            text = await response.text()
            assert text
            assert response.content_type != "application/octet-stream"
    async with client.get(f"{served.url}/") as response:
        page = await response.text()
    assert "<style" not in page
    assert " on" + "click=" not in page
    for path in ("/app.py", "/static/../app.py", "/%2e%2e/app.py", "/index.html"):
        async with client.get(served.url + path) as response:
            assert response.status == 404


async def test_it_tells_and_obeys(served: Served, client: ClientSession) -> None:
    served.log.write_bytes(b"> ver\r\n\xff")
    async with client.ws_connect(f"{served.url}/socket", origin=served.url) as socket:
        assert (await hear(socket, "board"))["name"] == "main"
        assert (await hear(socket, "console"))["text"] == "> ver\r\n\ufffd"
        assert await hear(socket, "look", power=True) == {"kind": "look", "power": True, "led": False, "pressed": False}
        served.desk.seen = Look(power=True, led=True, pressed=False)
        await hear(socket, "look", led=True)
        for piece, text in ((b"more \xc3", "more "), (b"\xa4", "\xe4")):  # a character may come in two pieces
            with served.log.open("ab") as log:
                log.write(piece)
            assert (await hear(socket, "console"))["text"] == text
        served.log.write_bytes(b"new")  # the log of another `up`
        assert (await hear(socket, "console"))["text"] == "new"
        for wish in (
            {"do": "press"},
            {"do": "release"},
            {"do": "power", "on": False},
            {"do": "reset"},
            {"do": "type", "text": "ls\r"},
        ):
            await socket.send_json(wish)
        await until(lambda: served.desk.did == ["press", "release", ("power", False), "reset", b"ls\r"])


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "nonsense", '{"do": "format"}', '{"do": "power"}', '{"do": null}', "7"]
)
async def test_what_it_does_not_understand_it_says(served: Served, client: ClientSession, text: str) -> None:
    async with client.ws_connect(f"{served.url}/socket", origin=served.url) as socket:
        await socket.send_str(text)
        assert "does not know" in (await hear(socket, "complaint"))["text"]
        assert served.desk.did == []


async def test_what_cannot_be_done_is_said(served: Served, client: ClientSession) -> None:
    served.desk.error = MachineError("the board is down")
    async with client.ws_connect(f"{served.url}/socket", origin=served.url) as socket:
        await socket.send_json({"do": "power", "on": True})
        assert (await hear(socket, "complaint"))["text"] == "the board is down."
        served.panel.complain("the button is stuck")
        assert (await hear(socket, "complaint"))["text"] == "the button is stuck"


@pytest.mark.parametrize("wish", [{"do": "press"}, {"do": "release"}, {"do": "type", "text": "a"}])
async def test_a_desk_that_is_busy_holds_up_no_other_page(
    served: Served, client: ClientSession, wish: dict[str, str]
) -> None:
    served.desk.busy.acquire()  # as while the power is switched on
    try:
        async with client.ws_connect(f"{served.url}/socket", origin=served.url) as socket:
            await socket.send_json(wish)
            await asyncio.sleep(0.05)
            async with asyncio.timeout(5), client.get(served.url) as response:
                assert response.status == 200
            assert not served.desk.did
            served.desk.busy.release()
            await until(lambda: served.desk.did)
    finally:
        with suppress(RuntimeError):
            served.desk.busy.release()


async def test_a_page_that_goes_takes_its_finger_along(served: Served, client: ClientSession) -> None:
    async with client.ws_connect(f"{served.url}/socket", origin=served.url) as socket:
        await socket.send_json({"do": "press"})
        await until(lambda: served.desk.did == ["press"])
    await until(lambda: served.desk.did == ["press", "release"])


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://rebound.example", "Host": "rebound.example"},
    ],
)  # fmt: skip
async def test_other_pages_of_the_browser_get_nothing(
    served: Served, client: ClientSession, headers: dict[str, str]
) -> None:
    with pytest.raises(WSServerHandshakeError) as caught:
        await client.ws_connect(f"{served.url}/socket", headers=headers)
    assert caught.value.status == 403
    if headers:
        async with client.get(served.url, headers=headers) as response:
            assert response.status == 403


async def test_pages_are_limited_and_messages_too(
    served: Served, client: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "MAX_PAGES", 1)
    async with client.ws_connect(f"{served.url}/socket", origin=served.url) as socket:
        with pytest.raises(WSServerHandshakeError) as caught:
            await client.ws_connect(f"{served.url}/socket", origin=served.url)
        assert caught.value.status == 503
        await socket.send_str("x" * (app_module.MAX_MESSAGE_BYTES + 1))
        async with asyncio.timeout(5):
            while (await socket.receive()).data != 1009:
                pass
    async with client.ws_connect(f"{served.url}/socket", origin=served.url) as socket:
        await hear(socket, "board")


# --- what the board says of itself ------------------------------------------------------------------------------------------
ANSWERS = {
    "version": Answer(0, "DEMO-1.0.0, 2026, Zentri-1, Board:virt", safe_mode=True), "good": Answer(0, "1"),
    "slots": Answer(0, "# slot version state tries good runs\n  a 1.0.0 running 3 yes yes"),
    "faults": Answer(0, "0: panic, slot a\n1: watchdog, slot b"), "state": Answer(0, "downloading"),
    "percent": Answer(0, "40"), "bytes": Answer(0, "1234"), "available": Answer(0, ""),
}  # fmt: skip


def test_answers_become_what_the_page_shows() -> None:
    assert describe(ANSWERS) == {
        "answers": True, "safe_mode": True, "version": "DEMO-1.0.0, 2026, Zentri-1, Board:virt", "good": True,
        "slots": [["a", "1.0.0", "running", "3", "yes", "yes"]], "faults": ["0: panic, slot a", "1: watchdog, slot b"],
        "update": {"state": "downloading", "percent": 40, "bytes": 1234, "available": ""},
    }  # fmt: skip
    assert (
        describe({**ANSWERS, "faults": Answer(0, "No faults"), "percent": Answer(1, "Command failed")})["faults"] == []
    )
    with pytest.raises(ValueError, match="many"):
        describe({**ANSWERS, "percent": Answer(0, "many")})


SESSION = """
import sys
print("> ", end="", flush=True)
answers = iter(["Set OK"] + ["DEMO-1.0.0", "# slot\\r\\n  a 1.0.0 running 3 yes yes", "No faults", "1", "idle", "0", "0", ""] * 2)
for line in sys.stdin:
    answer = next(answers, None)
    if answer is None:
        break
    body = answer + "\\r\\n" if answer else ""
    sys.stdout.write(line + f"R0{len(body):05d}\\r\\n" + body)
    sys.stdout.flush()
"""


async def test_a_board_that_cannot_be_found_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "AGAIN_S", 0.01)
    watched, looked = asyncio.Event(), []

    def command() -> None:
        looked.append(1)
        raise MachineError("the key is not there")

    watched.set()
    task = asyncio.create_task(Status(command, watched).run())
    await until(lambda: len(looked) == 3)
    task.cancel()
    await asyncio.wait({task})


async def test_one_session_is_asked_again_and_again_and_its_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "ASK_EVERY_S", 0.05)
    monkeypatch.setattr(status_module, "AGAIN_S", 0.05)
    watched, started = asyncio.Event(), []

    def command() -> list[str]:
        started.append(1)
        return ["/usr/bin/python3", "-c", SESSION]

    status = Status(command, watched)
    task = asyncio.create_task(status.run())
    await asyncio.sleep(0.1)
    assert not started, "nobody watches"
    watched.set()
    await until(lambda: status.latest["answers"])
    assert status.latest["slots"] == [["a", "1.0.0", "running", "3", "yes", "yes"]]
    await until(lambda: not status.latest["answers"])
    await until(lambda: len(started) == 2)
    watched.clear()
    task.cancel()
    await asyncio.wait({task})
