"""`network_up`, `network_down`, `network_restart`, `network_verify`, `ping`, `nslookup`, and the variables."""

from __future__ import annotations

import pytest

from tests.support.console import Caller
from zentrid.core.framing import Code
from zentrid.core.network import JoinFailedError
from zentrid.core.probes import Found, Lost, ProbeError, Reply


async def test_up_and_restart_tell_the_address(call: Caller) -> None:
    assert await call.body("nup") == "Network up: 10.0.2.15"
    assert await call.body("nre") == "Network up: 10.0.2.15"
    assert call.device.network.did == ["up", "restart"]


async def test_down_only_after_the_answer_has_gone_out(call: Caller) -> None:
    answer = await call("network_down")
    assert answer.body == "Network down"
    assert call.device.network.did == [], "who asked may have come over this network"
    assert await call.executor.afterwards(answer) == ""
    assert call.device.network.did == ["down"]
    call.device.network.error = JoinFailedError("No.")
    assert await call.executor.afterwards(await call("ndo")) == "No."


@pytest.mark.parametrize("line", ["network_up", "network_restart", "network_verify"])
async def test_why_it_does_not_come_up(call: Caller, line: str) -> None:
    call.device.network.error = call.device.network.problem = JoinFailedError("The network interface has no link.")
    answer = await call(line)
    assert (answer.code, answer.reason) == (Code.FAILED, "The network interface has no link.")


async def test_verify_looks_as_far_as_the_servers_name(call: Caller) -> None:
    assert await call.body("network_verify") == "Network up"
    assert call.out.lines == [
        "address: 10.0.2.15, 255.255.255.0 (dhcp)",
        "gateway: 10.0.2.2 is there",
        "name server: 10.0.2.3; dms.zentri.local: 192.0.2.7",
    ]
    call.device.probes.error = ProbeError("No name server answers about dms.zentri.local; check network.dns.")
    answer = await call("nve")
    assert answer.code == Code.FAILED
    assert "No name server" in answer.reason
    call.device.network.gateway_there = False
    assert "gateway 10.0.2.2 does not answer" in (await call("nve")).reason


async def test_verify_without_a_gateway(call: Caller) -> None:
    call.device.host.addresses = call.device.host.addresses and call.device.host.addresses._replace(gateway="")
    assert "its own network only" in await call.body("network_verify")
    assert call.device.network.did == []
    assert "name a host" in (await call("ping")).reason
    call.device.host.addresses = None
    assert (await call("network_verify")).code == Code.FAILED


async def test_ping(call: Caller) -> None:
    assert await call.body("ping example.com") == "Ping reply in 1.5 ms"
    assert await call.body("ping") == "Ping reply in 1.5 ms"
    assert call.device.probes.asked == ["ping example.com 1", "ping 10.0.2.2 1"]
    assert call.out.lines == []
    call.device.probes.replies = [Reply(2.0), Lost(), Reply(4.0)]
    assert await call.body("ping -n 3 a.b") == "2 of 3 answered; 2.0/3.0/4.0 ms (least, mean, most)"
    assert call.out.lines == ["Ping reply in 2.0 ms", "No reply", "Ping reply in 4.0 ms"]
    call.device.probes.replies = [Lost()]
    answer = await call("ping 10.9.9.9")
    assert (answer.code, call.device.probes.closed) == (Code.FAILED, 4)
    assert "10.9.9.9 does not answer" in answer.reason


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ping -n 0 a", Code.OUT_OF_BOUNDS),
        ("ping -n 21 a", Code.OUT_OF_BOUNDS),
        ("ping -n x a", Code.BAD_ARGUMENT),
        ("ping -n", Code.TOO_FEW_ARGUMENTS),
        ("ping -x", Code.UNKNOWN_OPTION),
        ("ping a b", Code.TOO_MANY_ARGUMENTS),
        ("ping a;b", Code.BAD_ARGUMENT),
        ("nslookup", Code.TOO_FEW_ARGUMENTS),
        ('nslookup ""', Code.BAD_ARGUMENT),
        ("nlo " + "a" * 254, Code.BAD_ARGUMENT),
        ("nlo -h", Code.BAD_ARGUMENT),
        ("network_up now", Code.TOO_MANY_ARGUMENTS),
    ],
)
async def test_codes(call: Caller, line: str, code: Code) -> None:
    assert (await call(line)).code == code
    assert call.device.probes.asked == []


async def test_nslookup(call: Caller) -> None:
    call.device.probes.found = [Found("192.0.2.7"), Found("2001:db8::7")]
    assert await call.body("nslookup example.com") == "192.0.2.7\n2001:db8::7"
    call.device.probes.found = []
    assert "no address for example.com" in (await call("nlo example.com")).reason
    assert call.device.probes.closed == 2


async def test_variables(call: Caller) -> None:
    assert await call.body("get network.status") == "up"
    call.device.network.problem = JoinFailedError("It is down.")
    assert await call.body("get ne u") == "It is down."
    assert await call.body("get wlan.mac") == await call.body("get network.mac")
    for line in ("set ne d 0", "set ne f wlan", "set wl s barn", "set ne st i 10.0.2.50", "set ne st n 255.255.0.0"):
        assert await call.body(line) == "Set OK"
    for line, code in (
        ("set network.static.ip 10.0.2.256", 7), ("set network.static.netmask 24", 7), ("set network.default_interface x", 7),
        ("set network.ip 10.0.2.50", 7), (f"set wlan.ssid {'x' * 33}", 9), ("set wlan.password short", 7),
    ):  # fmt: skip
        assert (await call(line)).code == code, line
    assert call.device.network.did == [], "nothing changes before it is asked for"


async def test_saving_what_cannot_come_up_is_told(call: Caller) -> None:
    await call.body("set network.default_interface wlan")
    assert await call.body("save") == "Success"
    assert "wlan.ssid" in "\n".join(call.out.lines)
    call.out.lines.clear()
    await call.body("set wlan.ssid barn")
    await call.body("save")
    assert call.out.lines == []


async def test_the_password_is_never_shown(call: Caller) -> None:
    assert await call.body('set wlan.password "open sesame"') == "Set OK"
    assert await call.body("get wlan.password") == "********"
    assert "sesame" not in await call.body("get all")
    refused = await call('set wl p "öpen sesame"')
    assert refused.code == Code.BAD_ARGUMENT
    assert "sesame" not in refused.reason
    assert call.executor.registry.keeps_secret('set wl p "open sesame"')


async def test_in_safe_mode_the_network_can_be_mended(safe_call: Caller) -> None:
    assert await safe_call.body("set network.dhcp 0") == "Set OK"
    assert (await safe_call("network_restart")).code == Code.SUCCESS
    assert (await safe_call("ping")).code == Code.SUCCESS


@pytest.mark.parametrize("line", ["network_up", "network_restart"])
async def test_an_address_that_nothing_checks_is_to_be_confirmed(call: Caller, line: str) -> None:
    call.device.network.unconfirmed = True
    assert await call.body(line) == "Network up: 10.0.2.15"
    assert "'network_verify' within 60 s keeps it" in call.out.lines[0]
    call.device.host.addresses = call.device.host.addresses and call.device.host.addresses._replace(gateway="")
    call.device.network.problem = JoinFailedError("The network interface has no link.")
    assert (await call("network_verify")).code == Code.FAILED
    assert call.device.network.unconfirmed, "it is not even there"
    call.device.network.problem = None
    await call.body("network_verify")
    assert not call.device.network.unconfirmed
