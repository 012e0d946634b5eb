"""The regular contact with the server: asked in time, commands answered before they are done, and done at most once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Release
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.update import dms, pace
from zentrid.update.contact import Contact, ServerCommand, parse_commands
from zentrid.update.errors import WorkerDiedError
from zentrid.update.protocol import Answer, Delivered, Message, Refused, Request, parse_line

ID = "0a0b0c0d-0000-4000-8000-000000000001"
RESET = {"id": ID, "command": "factory_reset", "settings_only": False}


# --- commands ---------------------------------------------------------------------------------------------------------------
@dataclass
class Owner:
    """The device's side of a contact: notes what happens in which order."""

    doorman: Doorman
    accepts: bool = True
    interval_s: int = 1
    happened: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    acted: asyncio.Event = field(default_factory=asyncio.Event)

    def contact(self) -> Contact:
        return Contact(lambda: self.interval_s, lambda facts: self.facts.update(facts), self.may, self.act)

    def may(self, command: ServerCommand) -> tuple[bool, str]:
        self.happened.append("may")
        return self.accepts, "as you like" if self.accepts else "not now"

    async def act(self, command: ServerCommand) -> None:
        told = [report["reason"] for report in self.doorman.reports if report["id"] == command.id]
        self.happened.append(f"act after {told}")
        self.acted.set()


@pytest.fixture
def owner(device: Device, doorman: Doorman, monkeypatch: pytest.MonkeyPatch) -> Owner:
    monkeypatch.setattr(dms, "ANSWER_PAUSES_S", (0.01, 0.01))
    made = Owner(doorman)
    device.parts_changes["contact"] = made.contact()
    return made


@asynccontextmanager
async def in_touch(device: Device, *, first_boot: bool = False, started: bool = True) -> AsyncIterator[None]:
    if started:
        device.boot()
        await device.manager.start()
    task = asyncio.create_task(device.manager.dms.keep_in_touch(first_boot=first_boot))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object], most_s: float = 20) -> None:
    async with asyncio.timeout(most_s):
        while not condition():
            await asyncio.sleep(0.02)


async def ask_once(device: Device) -> bool:
    """Ask for commands once, as `keep_in_touch` does; tell whether that worked."""
    client = device.manager.dms
    return await client._try(client._ask_for_commands, False)


async def test_answered_first_and_then_done(device: Device, doorman: Doorman, owner: Owner) -> None:
    doorman.commands = [RESET]
    async with in_touch(device):
        await until(owner.acted.is_set)
    assert owner.happened == ["may", "act after ['accepted']"]
    [report] = doorman.reports
    assert (report["id"], report["event"], report["version"], report["reason"], report["detail"]) == (
        ID, "command", "1.0.0", "accepted", "as you like",
    )  # fmt: skip
    assert owner.facts["claimed"] == "1"
    assert (owner.facts["owner"], owner.facts["tag"]) == ("maker", "release")


async def test_refused_is_reported_and_not_done(device: Device, doorman: Doorman, owner: Owner) -> None:
    owner.accepts = False
    doorman.commands = [RESET, {**RESET, "id": str(uuid4()), "command": "dance"}]
    device.start()
    await device.manager.start()
    assert await ask_once(device)
    assert [report["reason"] for report in doorman.reports] == ["refused", "refused"]
    assert doorman.reports[0]["detail"] == "not now"
    assert owner.happened == ["may", "may"]


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_what_the_server_does_not_want_any_more_is_not_done(
    device: Device, doorman: Doorman, owner: Owner, status: int
) -> None:
    doorman.commands = [RESET]
    doorman.habits.refuse_ids, doorman.habits.refuse_status = {ID}, status
    device.start()
    await device.manager.start()
    await ask_once(device)
    await ask_once(device)
    assert owner.happened == ["may"], "asked once, and never done"


async def test_no_answer_no_deed_and_another_try_later(device: Device, doorman: Doorman, owner: Owner) -> None:
    doorman.commands = [RESET]
    port = [1]
    device.parts_changes["server"] = lambda: ("127.0.0.1", port[0])
    device.start()
    await device.manager.start()
    client = device.manager.dms
    with pytest.raises(Exception, match="cannot reach"):
        await client._answer_and_act(parse_commands({"commands": [RESET]})[0])
    assert owner.happened == ["may"]
    port[0] = doorman.port
    assert await ask_once(device)
    assert owner.happened == ["may", "may", "act after ['accepted']"]


async def test_an_answer_that_got_lost_is_given_again_and_done_once(
    device: Device, doorman: Doorman, owner: Owner
) -> None:
    doorman.commands = [RESET]
    doorman.habits.lose_answers = 2
    device.start()
    await device.manager.start()
    assert await ask_once(device)
    assert len(doorman.asked("report")) == 3
    assert owner.happened == ["may", "act after ['accepted']"]
    assert await ask_once(device)
    assert len(owner.happened) == 2


async def test_answers_that_all_get_lost_are_never_done(device: Device, doorman: Doorman, owner: Owner) -> None:
    """The server has dropped the command: at most once, so here not at all; its owner sees it and may ask again."""
    doorman.commands = [RESET]
    doorman.habits.lose_answers = 3
    device.start()
    await device.manager.start()
    assert not await ask_once(device)
    assert await ask_once(device)
    assert owner.happened == ["may"]


async def test_a_server_that_repeats_itself_is_not_heeded(device: Device, doorman: Doorman, owner: Owner) -> None:
    doorman.commands, doorman.habits.repeat_commands = [RESET], True
    device.start()
    await device.manager.start()
    for _ in range(3):
        assert await ask_once(device)
    assert owner.happened == ["may", "act after ['accepted']"]


class Liar:
    """A worker that was taken over: says what it likes."""

    def __init__(self, lines: Sequence[Message]) -> None:
        self.lines = lines

    async def start(self, request: Request, fds: Sequence[int], silence_s: float) -> Liar:
        return self

    async def messages(self) -> AsyncIterator[Message]:
        for line in self.lines:
            yield line

    def stop(self) -> None:
        """Nothing to stop."""

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(
    "said",
    [
        (Answer({}),),
        (Delivered("0a0b0c0d-0000-4000-8000-000000000002"), Answer({})),
        (Refused(ID, 400, "no"), Answer({"delivered": ID})),
    ],
)
async def test_only_the_delivery_of_just_this_answer_counts(
    device: Device, owner: Owner, said: Sequence[Message]
) -> None:
    device.launcher = Liar(said)
    device.start()
    assert not await device.manager.dms._answer_and_act(parse_commands({"commands": [RESET]})[0])
    assert owner.happened == ["may"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"refused"}',
        b'{"type":"refused","report_id":"x","status":"no","sentence":""}',
        b'{"type":"refused","report_id":1}',
    ],
)
def test_a_refusal_that_makes_no_sense(line: bytes) -> None:
    with pytest.raises(WorkerDiedError):
        parse_line(line)


def test_a_refusal_is_bounded() -> None:
    found = parse_line(b'{"type":"refused","report_id":"' + b"x" * 100 + b'","status":400,"sentence":"a\\u001bb"}')
    assert found == Refused("x" * 64, 400, "a?b")


async def test_a_deed_that_fails_ends_nothing(
    device: Device, doorman: Doorman, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_command: ServerCommand) -> None:
        owner.acted.set()
        raise RuntimeError("the disk is on fire")

    device.parts_changes["contact"] = Contact(lambda: 1, lambda _facts: None, owner.may, fails)
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.05)
    doorman.commands = [RESET]
    async with in_touch(device):
        await until(owner.acted.is_set)
        before = len(doorman.asked("status"))
        await until(lambda: len(doorman.asked("status")) > before)
    assert owner.happened == ["may"]


# --- when -------------------------------------------------------------------------------------------------------------------
async def test_it_asks_at_the_start_and_again_after_each_interval(
    device: Device, doorman: Doorman, owner: Owner
) -> None:
    async with in_touch(device):
        await until(lambda: len(doorman.asked("status")) >= 3)
    [path, *_] = [path for _, path, _ in doorman.asked("status")]
    assert "&safemode=0&version=1.0.0&faults=0" in path


async def test_it_does_not_ask_more_often(device: Device, doorman: Doorman, owner: Owner) -> None:
    owner.interval_s = 300
    async with in_touch(device):
        await until(lambda: doorman.asked("status"))
        for _ in range(5):
            device.manager.dms.wake()
            await asyncio.sleep(0.1)
    assert len(doorman.asked("status")) == 1


async def test_without_an_interval_it_never_asks(device: Device, doorman: Doorman, owner: Owner) -> None:
    owner.interval_s = 0
    async with in_touch(device):
        await asyncio.sleep(0.3)
    assert doorman.asked("status") == []


async def test_a_server_that_fails_is_asked_less_and_less(
    device: Device, doorman: Doorman, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.1)
    doorman.habits.refuse = {"status": (500, "down")}
    async with in_touch(device):
        await asyncio.sleep(2)
        assert 2 <= len(doorman.asked("status")) <= 6
        doorman.habits.refuse = {}
        await until(lambda: owner.facts)


@pytest.mark.parametrize("first_boot", [True, False])
async def test_deliveries_that_fail_back_off_on_a_first_boot_too(
    device: Device, doorman: Doorman, monkeypatch: pytest.MonkeyPatch, first_boot: bool
) -> None:
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.1)
    doorman.habits.refuse = {"report": (500, "down")}
    await asyncio.to_thread(device.manager._ledger.outbox.put, {"id": ID, "event": "failed"})
    async with in_touch(device, first_boot=first_boot):
        await asyncio.sleep(2)
        assert 2 <= len(doorman.asked("report")) <= 6
        doorman.habits.refuse = {}
        await until(lambda: doorman.reports)


async def test_looking_for_the_server_on_a_first_boot_does_not_slow_down(
    device: Device, doorman: Doorman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.1)
    tries: list[int] = []

    def nowhere() -> tuple[str, int]:
        tries.append(1)
        return ("127.0.0.1", 1)

    device.parts_changes["server"] = nowhere
    async with in_touch(device, first_boot=True):
        await asyncio.sleep(2.5)
    assert len(tries) >= 10


async def test_commands_wait_while_a_release_is_on_trial(
    device: Device, doorman: Doorman, owner: Owner, published: Release
) -> None:
    await device.update()
    doorman.commands = [RESET]
    async with in_touch(device, first_boot=True):
        await until(lambda: owner.facts)
        assert device.manager.on_trial
        assert owner.happened == []
        await device.manager.on_healthy()
        await until(owner.acted.is_set)


async def test_it_waits_while_an_update_runs(
    device: Device, doorman: Doorman, owner: Owner, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dms, "BUSY_SLEEP_S", 0.05)
    seen: list[int] = []

    async def objection(_manifest: Any) -> str | None:
        await asyncio.sleep(1)  # a question that was under way may just have arrived
        before = len(doorman.asked("status"))
        doorman.commands = [RESET]
        await asyncio.sleep(2.5)
        seen.append(len(doorman.asked("status")) - before)
        return "not today"

    device.parts_changes["pre_install"] = objection
    device.launcher = SubprocessLauncher()  # the update may begin while a question is under way, which is then ended
    async with in_touch(device):
        await until(lambda: doorman.asked("status"))
        assert not (await device.update()).ok
        assert seen == [0]
        await until(owner.acted.is_set)


async def test_a_question_under_way_makes_way_for_an_update(
    device: Device, doorman: Doorman, owner: Owner, published: Release
) -> None:
    """The server answers slowly; who asks for an update does not wait for that."""
    device.launcher = SubprocessLauncher()
    device.parts_changes["limits"] = {"min_rate_bytes_s": 0.0, "total_s": 300.0}
    doorman.habits.trickle = "status"
    async with in_touch(device):
        await until(lambda: doorman.asked("status"))
        async with asyncio.timeout(dms.CONTACT_TOTAL_S - 10):
            assert (await device.update(check_only=True)).ok
    assert owner.facts == {}


# --- the outbox -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_full_batch_of_refused_reports_does_not_block_for_ever(
    device: Device, doorman: Doorman, owner: Owner, status: int
) -> None:
    ids = [str(uuid4()) for _ in range(dms.REPORTS_AT_ONCE + 3)]
    for each in ids:
        await asyncio.to_thread(device.manager._ledger.outbox.put, {"id": each, "event": "failed"})
    doorman.habits.refuse_ids, doorman.habits.refuse_status = set(ids[: dms.REPORTS_AT_ONCE]), status
    async with in_touch(device):
        outbox = device.manager._ledger.outbox
        await until(lambda: len(doorman.reports) == 3 and not len(outbox))
    assert await waiting(device) == []
    assert len(doorman.asked("report")) == len(ids), "none was sent twice"


async def test_a_refusal_that_is_not_for_the_content_drops_nothing(device: Device, doorman: Doorman) -> None:
    await asyncio.to_thread(device.manager._ledger.outbox.put, {"id": ID, "event": "failed"})
    for status in (403, 404, 429, 500, 503):
        doorman.habits.refuse_ids, doorman.habits.refuse_status = {ID}, status
        with pytest.raises(Exception, match="bad report"):
            await device.manager.dms.deliver()
    assert [report["id"] for report in await waiting(device)] == [ID]


async def test_large_reports_go_in_several_requests(device: Device, doorman: Doorman) -> None:
    """Sixteen of the largest would be more than the worker takes at once."""
    for _ in range(16):
        large = {"id": str(uuid4()), "event": "fault", "text": "x" * 60_000}
        await asyncio.to_thread(device.manager._ledger.outbox.put, large)
    assert await device.manager.dms.deliver() == 2
    assert all(len(request.to_bytes()) < 200_000 for request in device.launcher.requests)
    while await device.manager.dms.deliver():
        pass
    assert len(doorman.reports) == 16
