"""The network probe: what it believes of the network, and what the supervisor believes of it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zentrid import netprobe
from zentrid.adapters.probe import NetworkProbe
from zentrid.core.probes import PING_WAIT_S, Failed, Found, Lost, News, ProbeError, Reply
from zentrid.netprobe import checksum, echo_request, is_reply

TOKEN = b"t" * 32


@pytest.fixture(autouse=True)
def blocking() -> Iterator[None]:
    with blockbuster_ctx("zentrid.adapters"):
        yield


async def collect(news: AsyncGenerator[News, None]) -> list[News]:
    async with aclosing(news) as all_news:
        return [one async for one in all_news]


def script(code: str) -> NetworkProbe:
    """Return a probe that is another program."""
    return NetworkProbe((sys.executable, "-c", code), silence_s=5)


def reply_to(request: bytes) -> bytes:
    return bytes([0x45]) + bytes(19) + b"\0" + request[1:]


def test_only_the_answer_to_this_very_request_counts() -> None:
    request = echo_request(77, 3, TOKEN)
    assert checksum(request) == 0, "as RFC 1071 has it"
    assert request[:2] == b"\x08\x00"
    good = reply_to(request)
    assert is_reply(good, 77, 3, TOKEN)
    for bad in (
        b"", b"\x45", good[:24], good[:-1], good + b"x", b"\x4f" + good[1:], b"\x40" + good[1:], b"\x00" + good[1:],
        reply_to(echo_request(78, 3, TOKEN)), reply_to(echo_request(77, 4, TOKEN)), reply_to(echo_request(77, 3, b"u" * 32)),
        good[:20] + request,
    ):  # fmt: skip
        assert not is_reply(bad, 77, 3, TOKEN), bad


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=90))
def test_anything_may_stand_in_a_packet(packet: bytes) -> None:
    assert not is_reply(packet, 77, 3, TOKEN)


class Wire:
    """A raw socket; `answers` makes what comes back of each packet, an exception instead is raised by sending."""

    def __init__(self, *answers: Callable[[bytes], list[tuple[bytes, str]]] | OSError) -> None:
        self.answers = list(answers)
        self.waiting: list[tuple[bytes, tuple[str, int]]] = []
        self.timeout_s = 0.0

    def sendto(self, packet: bytes, address: tuple[str, int]) -> None:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        self.waiting += [(data, (sender, 0)) for data, sender in answer(packet)]

    def settimeout(self, timeout_s: float) -> None:
        assert 0 < timeout_s <= PING_WAIT_S
        self.timeout_s = timeout_s

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        if not self.waiting:
            time.sleep(self.timeout_s)
            raise TimeoutError
        return self.waiting.pop(0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netprobe, "PING_WAIT_S", 0.05)
    monkeypatch.setattr(netprobe, "PING_EVERY_S", 0.01)


@pytest.mark.usefixtures("quick")
def test_ping_takes_what_is_meant_for_it_and_nothing_else() -> None:
    wire = Wire(
        lambda p: [(b"\xff" * 60, "10.0.0.1"), (reply_to(p), "10.0.0.9"), (reply_to(p), "10.0.0.1")],
        lambda p: [(reply_to(p), "10.0.0.9")],
        lambda p: [(p, "10.0.0.1")],
        OSError(101, "Network is unreachable"),
    )
    news = list(netprobe.work(["ping", "10.0.0.1", "4"], wire))  # type: ignore[arg-type]
    assert [type(one) for one in news] == [Found, Reply, Lost, Lost, Failed]
    assert "no way to 10.0.0.1 (Network is unreachable)" in str(news[-1])


@pytest.mark.usefixtures("quick")
def test_no_more_packets_than_are_allowed() -> None:
    wire = Wire(*[lambda p: [(reply_to(p), "10.0.0.1")]] * 30)
    assert len(list(netprobe.work(["ping", "10.0.0.1", "9999"], wire))) == 21  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".de"])
def test_names_that_cannot_be(name: str) -> None:
    for raw in (None, Wire()):
        [failed] = netprobe.work(["resolve", name, "1"], raw)  # type: ignore[arg-type]
        assert f"no address for {name}" in str(failed)


@pytest.mark.parametrize(
    ("error", "word"),
    [(socket.EAI_AGAIN, "No name server answers"), (socket.EAI_NONAME, "no address for a.b")],
)
def test_names_that_have_no_address(monkeypatch: pytest.MonkeyPatch, error: int, word: str) -> None:
    def fail(*_: object) -> None:
        raise socket.gaierror(error, "text of the library")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for raw in (None, Wire()):
        [failed] = netprobe.work(["resolve", "a.b", "1"], raw)  # type: ignore[arg-type]
        assert word in str(failed)


async def test_a_name_by_the_real_process() -> None:
    assert await collect(NetworkProbe().resolve("127.0.0.1")) == [Found("127.0.0.1")]


async def test_ping_by_the_real_process() -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except PermissionError:  # the board's supervisor is root, whoever runs this may not be
        with pytest.raises(ProbeError, match="Packets cannot be sent"):
            await collect(NetworkProbe().ping("127.0.0.1", 2))
        return
    found, *replies = await collect(NetworkProbe().ping("127.0.0.1", 2))
    assert found == Found("127.0.0.1")
    assert [type(one) for one in replies] == [Reply, Reply]


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("print('found x')", "inside the device"),
        ("print('x' * 5000)", "inside the device"),
        ("print('failed No.')", "No."),
        ("import os; os.write(1, b'failed \\x1b[2J\\n')", r"\?\[2J"),
    ],
)
async def test_what_the_process_says_is_checked(code: str, word: str) -> None:
    with pytest.raises(ProbeError, match=word) as caught:
        await collect(script(code).ping("a", 1))
    assert str(caught.value).isprintable()


async def test_a_process_that_talks_without_end_is_ended() -> None:
    assert len(await collect(script("while True: print('lost', flush=True)").ping("a", 1))) < 40


async def test_a_silent_process_is_ended() -> None:
    silent = NetworkProbe((sys.executable, "-c", "import time; time.sleep(60)"), silence_s=0.2)
    with pytest.raises(ProbeError, match="no answer within"):
        await collect(silent.resolve("a"))


async def test_one_that_waits_no_more_leaves_no_process(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    endless = script(
        f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); print('lost', flush=True); time.sleep(60)"
    )
    task = asyncio.create_task(collect(endless.ping("a", 1)))
    async with asyncio.timeout(10):
        while not pid.exists() or not pid.read_text():
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_a_process_that_cannot_be_started() -> None:
    with pytest.raises(ProbeError, match="cannot be started"):
        await collect(NetworkProbe(("/none",)).resolve("a"))
