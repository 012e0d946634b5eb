"""What the settings ask of the network, and why there may be none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.network import (
    DEFAULT,
    DOWN,
    HostAddress,
    JoinFailedError,
    Mode,
    Netmask,
    NetworkNotSetError,
    Plan,
    parse_plan,
    plan_at_start,
    plan_of,
    prefix_of,
    to_number,
    why_no_network,
)
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import Value, Values

FIXED = Plan(Mode.STATIC, "192.168.7.20", 24, "192.168.7.1", "192.168.7.2")


def values(**changes: Value) -> Values:
    """Settings of a fixed address that can be used, with changes (`_` stands for the dots)."""
    made = Values(VARIABLES)
    fixed: dict[str, Value] = {
        "network.dhcp": False, "network.static.ip": FIXED.ip, "network.static.gateway": FIXED.gateway,
        "network.static.dns": FIXED.dns,
    }  # fmt: skip
    for name, value in (fixed | {name.replace("__", "."): value for name, value in changes.items()}).items():
        made.set(name, value)
    return made


def test_out_of_the_box_it_is_dhcp() -> None:
    assert plan_of(Values(VARIABLES)) == DEFAULT == Plan(Mode.DHCP)
    assert plan_at_start(Values(VARIABLES)) == (DEFAULT, "")


def test_a_fixed_address() -> None:
    assert plan_of(values()) == FIXED
    assert plan_of(values(network__static__netmask="255.255.0.0")).prefix == 16
    assert plan_of(values(network__static__gateway="", network__static__dns="")).gateway == ""
    assert plan_of(values(network__dhcp=True)) == DEFAULT


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"network__static__ip": ""}, "set network.static.ip"),
        ({"network__static__ip": "192.168.7.0"}, "whole network"),
        ({"network__static__ip": "192.168.7.255"}, "whole network"),
        ({"network__static__gateway": "192.168.8.1"}, "not in the network"),
        ({"network__static__gateway": "192.168.7.20"}, "address and gateway at once"),
        ({"network__static__netmask": "255.255.255.252", "network__static__ip": "192.168.7.5"}, "not in the network"),
        ({"network__static__netmask": "255.255.255.252", "network__static__gateway": ""}, "whole network"),
    ],
)  # fmt: skip
def test_a_fixed_address_that_cannot_be_is_refused_and_at_the_start_it_is_dhcp(
    changes: dict[str, Value], word: str
) -> None:
    with pytest.raises(NetworkNotSetError, match=word):
        plan_of(values(**changes))
    plan, problem = plan_at_start(values(**changes))
    assert plan == DEFAULT, "a device that nobody can reach is worse than one with another address"
    assert word in problem


def test_a_radio_without_a_network_joins_none_and_is_reachable_after_a_start() -> None:
    settings = values(network__default_interface="wlan")
    with pytest.raises(NetworkNotSetError, match=r"wlan\.ssid"):
        plan_of(settings)
    assert plan_at_start(settings)[0] == DEFAULT
    settings.set("wlan.ssid", "barn")
    assert plan_of(settings) == FIXED


@pytest.mark.parametrize("plan", [DEFAULT, DOWN, FIXED, Plan(Mode.STATIC, "10.0.0.1", 8)])
def test_a_plan_survives_being_written(plan: Plan) -> None:
    assert parse_plan(plan.to_line(7)) == (7, plan)


@given(
    st.text(max_size=60) | st.lists(st.sampled_from(["1", "static", "dhcp", "1.2.3.4/8", "-", "\n", "x"])).map(" ".join)
)
def test_any_other_line_is_none(line: str) -> None:
    found = parse_plan(line)
    assert found is None or found[1].to_line(found[0]) == line


@pytest.mark.parametrize("text", ["10.0.2.15", "1.0.0.1", "223.255.255.254"])
def test_addresses(text: str) -> None:
    assert HostAddress().parse(text) == text


@pytest.mark.parametrize(
    "text",
    ["10.0.2", "10.0.2.256", "10.0.2.015", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "a.b.c.d", " ",
     "1.2.3.4.5", "1..2.3", "-1.2.3.4", "١.2.3.4", "10.0.2.15/24", "10.0.2.15;reboot"],
)  # fmt: skip
def test_what_is_no_address_of_a_machine(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        HostAddress().parse(text)
    assert caught.value.code == Code.BAD_ARGUMENT
    assert "192.168.1.20" in str(caught.value)


@given(st.text(max_size=20))
def test_whatever_is_an_address_is_plain(text: str) -> None:
    if to_number(text) is not None:
        assert set(text) <= set("0123456789.")


def test_masks() -> None:
    assert [prefix_of(m) for m in ("255.255.255.0", "255.255.255.252", "0.0.0.0", "255.0.255.0")] == [24, 30, 0, None]
    for bad in ("255.0.255.0", "0.0.0.0", "255.255.255.254", "255.255.255.255", "", "24"):
        with pytest.raises(CommandError):
            Netmask().parse(bad)
    assert not Netmask().check(24)
    assert not HostAddress().check(True)


@pytest.mark.parametrize(
    ("plan", "problem", "carrier", "ip", "kind", "word"),
    [
        (DEFAULT, "", True, "10.0.2.15", None, ""),
        (FIXED, "set wlan.ssid", True, "10.0.2.15", None, ""),  # what is set is not what is in use
        (DOWN, "set wlan.ssid", False, "", NetworkNotSetError, "wlan.ssid"),
        (DOWN, "", False, "", JoinFailedError, "network_up"),
        (DEFAULT, "", False, "", JoinFailedError, "no link"),
        (DEFAULT, "", False, "10.0.2.15", JoinFailedError, "no link"),
        (DEFAULT, "", True, "", JoinFailedError, "DHCP"),
        (FIXED, "", True, "", JoinFailedError, "network_restart"),
    ],
)
def test_why_there_is_no_network(
    plan: Plan, problem: str, carrier: bool, ip: str, kind: type | None, word: str
) -> None:
    trouble = why_no_network(plan, problem, carrier=carrier, ip=ip)
    assert (None if trouble is None else type(trouble)) == kind
    assert word in str(trouble)
