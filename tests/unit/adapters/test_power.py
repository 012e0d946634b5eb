"""Restarting: it goes on whatever is in its way, and from then on the watchdog stands behind it."""

import asyncio

import pytest

from zentrid.adapters import power
from zentrid.adapters.power import InitPower
from zentrid.core.bootstate import BootState, BootStateWriteError


class Store:
    """A boot state in memory that may refuse to be written."""

    def __init__(self, *, broken=False):
        self.state = BootState(running=True)
        self.broken = broken

    def read(self):
        return self.state

    def write(self, state):
        return self.update(lambda _state: state)

    def update(self, change):
        if self.broken:
            raise BootStateWriteError("test")
        self.state = change(self.state)
        return self.state


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A file that the commands write their names to."""
    path = tmp_path / "told"
    monkeypatch.setattr(power, "REBOOT_COMMAND", ("/bin/sh", "-c", f"echo orderly >> {path}"))
    monkeypatch.setattr(power, "FORCED_COMMAND", ("/bin/sh", "-c", f"echo forced >> {path}"))
    monkeypatch.setattr(power, "ORDERLY_TIMEOUT_S", 0.05)
    return path


async def until_told(path, text):
    async with asyncio.timeout(5):
        while not (path.exists() and path.read_text() == text):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("broken", [False, True])
async def test_init_is_asked_and_then_overruled(told, broken):
    store = Store(broken=broken)
    one = InitPower(store)
    assert not one.going_down
    await one.reboot("test")
    await one.reboot("a second time changes nothing")
    assert one.going_down
    assert store.state.running is broken
    await until_told(told, "orderly\nforced\n")
    assert one._overruling is not None
    await one._overruling


async def test_at_once_means_without_init_and_with_everything_before(told, monkeypatch):
    monkeypatch.setattr(power, "ORDERLY_TIMEOUT_S", 100)
    done = []

    async def step():
        assert not told.exists()
        done.append("before")

    store = Store()
    one = InitPower(store)
    one.before = [step]
    await one.reboot("test", at_once=True)
    await until_told(told, "forced\n")
    assert done == ["before"]
    assert store.state.running is False
    assert one._overruling is not None
    one._overruling.cancel()


async def test_a_command_that_cannot_be_started_does_not_keep_the_other_from_it(told, monkeypatch):
    monkeypatch.setattr(power, "REBOOT_COMMAND", ("/nonexistent",))
    one = InitPower(Store())
    await one.reboot("test")
    await until_told(told, "forced\n")
    assert one._overruling is not None
    await one._overruling


async def test_what_comes_before_may_fail_or_hang(told, monkeypatch, caplog):
    monkeypatch.setattr(power, "BEFORE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(power, "ORDERLY_TIMEOUT_S", 100)
    done = []

    async def fails():
        done.append("fails")
        raise ValueError("x")

    async def hangs():
        done.append("hangs")
        await asyncio.sleep(100)

    async def works():
        assert not told.exists(), "init was asked already"
        done.append("works")

    one = InitPower(Store())
    one.before = [fails, hangs, works]
    await one.reboot("test")
    await until_told(told, "orderly\n")
    assert done == ["fails", "hangs", "works"]
    assert [record.message for record in caplog.records if "all the same" in record.message] == [
        "restarting all the same: x", "restarting all the same: TimeoutError",
    ]  # fmt: skip
    assert one._overruling is not None
    one._overruling.cancel()


@pytest.mark.parametrize("broken", [False, True])
def test_a_process_that_is_about_to_end_restarts_the_board_before_it_does(told, monkeypatch, broken):
    store = Store(broken=broken)
    InitPower(store).reboot_now("test")
    assert told.read_text() == "orderly\n"
    assert store.state.running is broken


def test_init_that_refuses_or_hangs_is_overruled_at_once(told, monkeypatch):
    monkeypatch.setattr(power, "REBOOT_COMMAND", ("/bin/sleep", "60"))
    monkeypatch.setattr(power, "ORDERLY_TIMEOUT_S", 0.5)
    InitPower(Store()).reboot_now("test")
    assert told.read_text() == "forced\n"
