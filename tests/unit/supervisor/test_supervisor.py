"""The supervisor with in-memory ports: it marks good, gives up, feeds."""

import asyncio
import threading
from dataclasses import dataclass, field

import pytest

from zentrid.core.bootstate import BootStateWriteError
from zentrid.core.health import PULSE_LIMIT_S, Facts, Policy
from zentrid.supervisor import NotGoodError, Supervisor


@dataclass
class World:
    """In-memory implementations of what the supervisor asks for."""

    first_boot: bool = False
    on_trial: bool = False
    dms_reached: bool = True
    uptime: float = 5.0
    calls: list[str] = field(default_factory=list)
    fed: int = 0
    unwritable: int = 0
    """So many times the boot state refuses to be written."""

    def uptime_s(self):
        self.uptime += 1
        return self.uptime

    def feed(self):
        self.fed += 1

    async def on_healthy(self):
        if self.unwritable:
            self.unwritable -= 1
            self.calls.append("not written")
            raise BootStateWriteError("test")
        self.calls.append("healthy")

    async def on_unhealthy(self, reason):
        self.calls.append(f"unhealthy: {reason}")

    async def reboot(self, why):
        self.calls.append(f"reboot: {why}")


def supervisor(world, *, facts=None, hooks=(), **more):
    async def answers():
        return tuple(hooks)

    return Supervisor(
        power=world, outcome=world, clock=world, watchdog=world,
        policy=lambda: Policy(healthy_after_s=2, deadline_s=6, commit_offline=False),
        facts=lambda: facts or Facts(), hooks=answers, **more,
    )  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("zentrid.supervisor.STEP_S", 0.01)
    monkeypatch.setattr("zentrid.supervisor.HOOKS_EVERY_S", 0.01)
    monkeypatch.setattr("zentrid.supervisor.GIVE_UP_RETRY_S", 60)


async def until(condition, task):
    async with asyncio.timeout(10):
        while not condition():
            if task.done():
                task.result()
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_healthy_boot_is_marked_good_once(quick):
    world = World()
    boss = supervisor(world)
    await until(lambda: boss.good, asyncio.create_task(boss.run()))
    assert world.calls == ["healthy"]
    assert world.fed


async def test_a_sick_first_boot_records_why_and_then_restarts(quick):
    world = World(first_boot=True)
    boss = supervisor(world, hooks=["health hook 10-pump: no answer"])
    await until(lambda: len(world.calls) == 2, asyncio.create_task(boss.run()))
    assert world.calls[0].startswith("unhealthy: ")
    assert "10-pump: no answer" in world.calls[0]
    assert world.calls[1].startswith("reboot: ")
    assert not boss.good


async def test_hooks_that_have_not_answered_yet_do_not_count_as_yes(quick):
    world = World()
    never = asyncio.Event()

    async def waiting():
        await never.wait()
        return ()

    boss = supervisor(world)
    boss.hooks = waiting
    task = asyncio.create_task(boss.run())
    await asyncio.sleep(0.3)
    assert world.calls == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_boot_state_that_cannot_be_written_leaves_the_boot_unmarked_and_is_tried_again(quick):
    world = World(unwritable=2)
    boss = supervisor(world)
    task = asyncio.create_task(boss.run())
    while world.calls.count("not written") < 1:
        await asyncio.sleep(0.005)
    assert not boss.good
    await until(lambda: boss.good, task)
    assert world.calls == ["not written", "not written", "healthy"]


async def test_the_watchdog_starves_when_the_interfaces_stay_silent(quick, monkeypatch):
    monkeypatch.setattr("zentrid.supervisor.WATCHDOG_GRACE_S", 5)
    world = World()
    boss = supervisor(world, facts=Facts(deaf=True))
    task = asyncio.create_task(boss.run())
    await asyncio.sleep(0.3)
    fed = world.fed
    await asyncio.sleep(0.2)
    assert 0 < fed < 8
    assert world.fed == fed
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_watchdog_is_not_fed_any_more_once_the_board_goes_down(quick):
    """A shutdown that hangs must end in a reset."""
    world = World()
    boss = supervisor(world)
    boss.going_down = lambda: world.fed >= 3
    task = asyncio.create_task(boss.run())
    await asyncio.sleep(0.3)
    assert world.fed == 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_hooks_that_fail_inside_are_an_answer_and_asked_again(quick):
    world = World()
    boss = supervisor(world)
    asked = []

    async def failing():
        asked.append(1)
        if len(asked) < 3:
            raise ValueError("inside")
        return ()

    boss.hooks = failing
    await until(lambda: boss.good, asyncio.create_task(boss.run()))
    assert len(asked) >= 3


async def test_threads_that_wait_for_each_other_for_ever_starve_the_watchdog(quick, monkeypatch):
    monkeypatch.setattr("zentrid.supervisor.WATCHDOG_GRACE_S", 5)
    stuck = threading.Event()
    world = World()
    boss = supervisor(world, pulse=stuck.wait)
    task = asyncio.create_task(boss.run())
    # each look at the clock is a second of uptime here
    await until_quiet(world)
    assert world.uptime > PULSE_LIMIT_S
    fed = world.fed
    await asyncio.sleep(0.2)
    assert world.fed == fed, "it goes on feeding"
    stuck.set()
    await until(lambda: world.fed > fed, task)


async def until_quiet(world):
    """Wait until the watchdog is fed no more."""
    fed = -1
    async with asyncio.timeout(20):
        while world.fed != fed or world.uptime < PULSE_LIMIT_S:
            fed = world.fed
            await asyncio.sleep(0.2)


async def test_faults_are_forgotten_after_healthy_running_without_a_new_one(quick):
    world = World()

    async def forget():
        world.calls.append(f"forgotten at {world.uptime:.0f}")

    boss = supervisor(world, decay_s=lambda: 100.0, forget_faults=forget)
    task = asyncio.create_task(boss.run())
    async with asyncio.timeout(10):
        while world.uptime < 80:
            await asyncio.sleep(0.005)
    boss.note_fault()
    noted_s = world.uptime
    await until(lambda: len(world.calls) == 2, task)
    assert world.calls[0] == "healthy"
    assert float(world.calls[1].rsplit(" ", 1)[1]) >= noted_s + 100


async def test_a_boot_that_is_not_healthy_forgets_nothing(quick):
    world = World()

    async def forget():
        world.calls.append("forgotten")

    boss = supervisor(world, facts=Facts(application="it crashes"), decay_s=lambda: 1.0, forget_faults=forget)
    task = asyncio.create_task(boss.run())
    await until(lambda: world.uptime > 100, task)
    assert world.calls == []


async def test_a_slow_round_does_not_starve_the_watchdog_and_one_that_never_ends_does(quick, monkeypatch):
    monkeypatch.setattr("zentrid.supervisor.WATCHDOG_GRACE_S", 1)
    slow = asyncio.Event()

    class Slow(World):
        async def on_healthy(self):
            self.calls.append("marking")
            await slow.wait()

    world = Slow()
    boss = supervisor(world)
    task = asyncio.create_task(boss.run())
    async with asyncio.timeout(10):
        while not world.calls:
            await asyncio.sleep(0.005)
    fed = world.fed
    async with asyncio.timeout(10):
        while world.fed < fed + 3:
            await asyncio.sleep(0.005)
    await until_quiet(world)
    slow.set()
    await until(lambda: boss.good, task)


async def test_somebody_who_knows_better_marks_a_boot_good_without_waiting(quick):
    world = World(first_boot=True, on_trial=True, dms_reached=False)
    boss = supervisor(world)
    task = asyncio.create_task(boss.run())
    async with asyncio.timeout(10):
        while boss._hook_answers:
            await asyncio.sleep(0.005)
    assert not boss.good
    assert "server" in boss.decision.reason.lower()
    assert await boss.mark_good_now() == "This boot is good."
    assert boss.good
    assert await boss.mark_good_now() == "This boot is good already."
    await until(lambda: boss.decision.reason == "this boot is good", task)
    assert world.calls == ["healthy"]


@pytest.mark.parametrize(
    ("facts", "hooks", "why"),
    [
        (Facts(data="the data partition is read-only"), (), "the data partition is read-only"),
        (Facts(application="the application has ended"), (), "the application has ended"),
        (Facts(), ("10-radio: no signal",), "10-radio: no signal"),
    ],
)
async def test_nobody_marks_a_boot_good_while_something_is_wrong(quick, facts, hooks, why):
    world = World()
    boss = supervisor(world, facts=facts, hooks=hooks)
    with pytest.raises(NotGoodError, match="have not answered yet"):  # not even asked
        await boss.mark_good_now()
    task = asyncio.create_task(boss.run())
    async with asyncio.timeout(10):
        while boss._hook_answers != hooks:
            await asyncio.sleep(0.005)
    with pytest.raises(NotGoodError, match=why):
        await boss.mark_good_now()
    assert not boss.good
    task.cancel()
    await asyncio.wait({task})
    assert "healthy" not in world.calls


async def test_a_boot_state_that_cannot_be_written_is_no_good_boot(quick):
    world = World(unwritable=1)
    boss = supervisor(world)
    boss._hook_answers = ()
    with pytest.raises(NotGoodError, match="could not be written"):
        await boss.mark_good_now()
    assert not boss.good
    assert await boss.mark_good_now() == "This boot is good."


class SlowWorld(World):
    """Writing to the disk takes until `written` is set."""

    def __init__(self, **more):
        super().__init__(**more)
        self.begun = asyncio.Event()
        self.written = asyncio.Event()

    async def on_healthy(self):
        self.begun.set()
        await self.written.wait()
        await super().on_healthy()

    async def on_unhealthy(self, reason):
        self.begun.set()
        await self.written.wait()
        await super().on_unhealthy(reason)


async def test_a_boot_is_marked_good_once_whoever_says_so_at_the_same_time(quick):
    world = SlowWorld()
    boss = supervisor(world)
    task = asyncio.create_task(boss.run())
    async with asyncio.timeout(10):
        await world.begun.wait()  # the supervisor itself is at it
        told = [asyncio.create_task(boss.mark_good_now()) for _ in range(2)]
        await asyncio.sleep(0.05)
        world.written.set()
        assert await asyncio.gather(*told) == ["This boot is good."] * 2
    await until(lambda: boss.decision.reason == "this boot is good", task)
    assert world.calls == ["healthy"]


async def test_a_boot_that_is_being_given_up_does_not_become_good(quick):
    world = SlowWorld(first_boot=True, on_trial=True)
    hooks = ["10-radio: no signal"]

    async def answers():
        return tuple(hooks)

    boss = supervisor(world)
    boss.hooks = answers
    task = asyncio.create_task(boss.run())
    async with asyncio.timeout(10):
        await world.begun.wait()
        hooks.clear()  # now that it is too late
        while boss._hook_answers:
            await asyncio.sleep(0.005)
    for _ in range(2):
        async with asyncio.timeout(10):
            with pytest.raises(NotGoodError, match="about to end"):
                await boss.mark_good_now()
        world.written.set()
        await asyncio.sleep(0.02)
    await until(lambda: len(world.calls) == 2, task)
    assert [call.partition(":")[0] for call in world.calls] == ["unhealthy", "reboot"]


async def test_a_boot_that_was_just_marked_good_is_not_given_up(quick):
    world = SlowWorld()
    boss = supervisor(world)
    boss._hook_answers = ()
    marking = asyncio.create_task(boss.mark_good_now())
    await world.begun.wait()
    giving_up = asyncio.create_task(boss._give_up())
    await asyncio.sleep(0.02)
    world.written.set()
    assert await marking == "This boot is good."
    async with asyncio.timeout(10):
        await giving_up
    assert world.calls == ["healthy"]


async def test_a_board_that_goes_down_is_not_called_good(quick):
    boss = supervisor(World(), going_down=lambda: True)
    boss._hook_answers = ()
    with pytest.raises(NotGoodError, match="about to end"):
        await boss.mark_good_now()
    assert not boss.good
