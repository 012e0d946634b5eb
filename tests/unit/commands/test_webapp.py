"""The command `webapp_recover`: what it asks for, its progress, its ends."""

import asyncio

import pytest

from tests.support.console import Caller
from tests.support.fakes import Device
from zentrid.core.framing import Code
from zentrid.errors import ZentriError


@pytest.mark.parametrize(("line", "source"), [("webapp_recover", ""), ("wre dms", "dms"), ("wre image", "image")])
async def test_it_restores_with_progress(call: Caller, device: Device, line: str, source: str) -> None:
    assert await call.body(line) == f"The Web App 1.0.0 is restored from {source or 'somewhere'}."
    assert device.web_app.asked == [source]
    assert call.out.steps == [(0, "index.html"), (100, "")]


async def test_how_far_it_is(call: Caller, device: Device) -> None:
    device.web_app.status = "restoring: 30 % index.html"
    assert await call.body("webapp_recover status") == "restoring: 30 % index.html"
    assert device.web_app.asked == []


async def test_what_goes_wrong_is_told(call: Caller, device: Device) -> None:
    device.web_app.error = ZentriError("The disk is full.")
    answer = await call("webapp_recover")
    assert (answer.code, answer.reason) == (Code.FAILED, "The disk is full.")
    answer = await call("webapp_recover cloud")
    assert answer.code == Code.BAD_ARGUMENT
    device.ctx.web_app = None
    assert "no Web App" in (await call("webapp_recover")).reason


async def test_ctrl_c_stops_it(call: Caller, device: Device) -> None:
    device.web_app.gate = asyncio.Event()
    interrupt = asyncio.Event()
    task = asyncio.create_task(call("webapp_recover", interrupt))
    async with asyncio.timeout(10):
        while not device.web_app.asked:
            await asyncio.sleep(0)
        interrupt.set()
        answer = await task
    assert (answer.code, answer.reason) == (Code.FAILED, "Stopped.")


async def test_in_safe_mode_too(safe_call: Caller) -> None:
    assert "restored" in await safe_call.body("webapp_recover image")
