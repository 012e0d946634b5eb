"""`dms claim`, `activate`, `status`: the server's sentences come through to the letter, secrets go nowhere else."""

from __future__ import annotations

import logging

import pytest

from tests.support.console import Caller
from zentrid.core.framing import Code
from zentrid.errors import ZentriError


async def test_claim_activate_status(call: Caller) -> None:
    assert await call.body('dms claim demo "let me in"') == "device claimed"
    assert await call.body("get dms.claimed") == "1"
    assert await call.body("dms activate DEMO-VIRT_SENSOR") == "Success"
    assert await call.body("get dms.product") == "DEMO-VIRT_SENSOR"
    assert (await call.body("dms status")).split("\n") == [
        "server: dms.zentri.local:8443",
        "claimed: yes",
        "owner: demo",
        "product: DEMO-VIRT_SENSOR",
        "tag: release",
        "server_time: 2026-11-02T00:00:00Z",
        "last_contact: 2026-11-02T12:00:00Z",
    ]
    assert await call.body("get dms.tag") == "release"


async def test_status_of_an_unclaimed_device(call: Caller) -> None:
    assert "claimed: no\nowner:\nproduct:\n" in await call.body("dms status")


async def test_refused_claim_passes_the_servers_words_on(call: Caller) -> None:
    answer = await call("dms claim demo wrong")
    assert (answer.code, answer.body) == (Code.FAILED, "Command failed")
    assert answer.reason == '{"result":"fail","message":"wrong user name or password"}'
    assert await call.body("get dms.claimed") == "0"


async def test_no_server(call: Caller) -> None:
    call.device.dms.error = ZentriError("The DMS cannot be reached; check the network.")
    for line in ("dms status", "dms activate DEMO-VIRT_SENSOR", "dms claim demo x"):
        assert (await call(line)).reason == "The DMS cannot be reached; check the network."


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("dms claim", Code.TOO_FEW_ARGUMENTS),
        ("dms claim demo", Code.TOO_FEW_ARGUMENTS),
        ("dms claim demo hunter2 again", Code.TOO_MANY_ARGUMENTS),
        ("dms claim demo " + "hunter2" * 40, Code.OUT_OF_BOUNDS),
        ('dms claim "" hunter2', Code.OUT_OF_BOUNDS),
        ('dms claim demo ""', Code.OUT_OF_BOUNDS),
        ("dms activate demo", Code.BAD_ARGUMENT),
        ("dms activate A-B_" + "C" * 33, Code.BAD_ARGUMENT),
    ],
)
async def test_mistakes_reach_no_server_and_show_no_secret(call: Caller, line: str, code: Code) -> None:
    call.device.dms.error = ZentriError("asked the server")
    answer = await call(line)
    assert answer.code == code
    assert "hunter2" not in answer.reason


async def test_passwords_are_in_no_log(call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await call("dms claim demo hunter2")
    await call("dms claim demo hunter2 again")
    assert "hunter2" not in caplog.text
    assert all("hunter2" not in line for line in call.out.lines)
