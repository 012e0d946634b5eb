"""What the settings ask of the network, and why there may be none. Pure: no interface is touched here.

The board has one network interface. The settings lead to a `Plan` for it: an address by DHCP, a fixed one, or none. On a board
with a radio `network.default_interface` chooses what is joined; on one without, its Ethernet stands for the radio.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.variables import Value, Values
from zentrid.errors import ZentriError

_BITS: Final = 32
_LOWEST_PREFIX, _HIGHEST_PREFIX = 8, 30
_NONE: Final = "-"
_OCTETS: Final = 4


class NetworkError(ZentriError):
    """The network is not as it was asked for; the sentence says what to do."""

    reason = "network"


class NetworkNotSetError(NetworkError):
    """The settings do not say enough to join a network (`dms.ota_result` 4)."""

    reason = "no_network_set"


class JoinFailedError(NetworkError):
    """The network is set, but it cannot be joined (`dms.ota_result` 5)."""

    reason = "join_failed"


class Mode(Enum):
    """How the interface gets its address."""

    DHCP = "dhcp"
    STATIC = "static"
    DOWN = "down"


@dataclass(frozen=True)
class Plan:
    """What the interface is to be."""

    mode: Mode = Mode.DHCP
    ip: str = ""
    """Dotted, as all addresses here; the four of them are for a fixed address only."""
    prefix: int = 0
    """Leading one bits of the network mask."""
    gateway: str = ""
    dns: str = ""

    def to_line(self, generation: int) -> str:
        """Return the plan as one line of words, for the script that carries it out; `-` stands for nothing."""
        words = [str(generation), self.mode.value]
        if self.mode is Mode.STATIC:
            words += [f"{self.ip}/{self.prefix}", self.gateway or _NONE, self.dns or _NONE]
        return " ".join(words) + "\n"


def parse_plan(line: str) -> tuple[int, Plan] | None:
    """Return generation and plan of a line that `to_line` made; None for any other."""
    words = line.split()
    try:
        generation, plan = int(words[0]), Plan(Mode(words[1]))
        if plan.mode is Mode.STATIC:
            address, gateway, dns = words[2:5]
            ip, prefix = address.split("/")
            plan = Plan(Mode.STATIC, ip, int(prefix), gateway.strip(_NONE), dns.strip(_NONE))
    except (ValueError, IndexError):
        return None
    return (generation, plan) if plan.to_line(generation) == line else None


DEFAULT: Final = Plan()
DOWN: Final = Plan(Mode.DOWN)


def to_number(address: str) -> int | None:
    """Return a dotted IPv4 address as a number of 32 bits; None if it is none."""
    parts = address.split(".")
    if len(parts) != _OCTETS or not all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts):
        return None
    octets = [int(p) for p in parts]
    # A leading zero means octal to some programs and nothing to others.
    if any(o > 255 for o in octets) or any(len(p) > 1 and p[0] == "0" for p in parts):
        return None
    return int.from_bytes(bytes(octets), "big")


def prefix_of(netmask: str) -> int | None:
    """Return the number of leading ones of a network mask; None if it is none."""
    number = to_number(netmask)
    if number is None:
        return None
    prefix = number.bit_count()
    return prefix if number == _mask(prefix) else None


def _mask(prefix: int) -> int:
    return (1 << _BITS) - (1 << (_BITS - prefix))


def _is_host(number: int) -> bool:
    """Tell whether a single machine may have this address: not this-network, loopback, multicast, reserved, broadcast."""
    first = number >> 24
    return 0 < first < 224 and first != 127


@dataclass(frozen=True)
class HostAddress:
    """A kind of variable: the IPv4 address of one machine, or empty."""

    def parse(self, text: str) -> Value:
        """Return the address. Raises CommandError."""
        if not self.check(text):
            raise CommandError(Code.BAD_ARGUMENT, f"'{text}' is not valid here: {self.describe()}.")
        return text

    def check(self, value: Value) -> bool:
        """Tell whether it is such an address."""
        if value == "" or not isinstance(value, str):
            return value == ""
        number = to_number(value)
        return number is not None and _is_host(number)

    def describe(self) -> str:
        """Return the range in words."""
        return "an IPv4 address such as 192.168.1.20, or empty"


@dataclass(frozen=True)
class Netmask:
    """A kind of variable: an IPv4 network mask."""

    def parse(self, text: str) -> Value:
        """Return the mask. Raises CommandError."""
        if not self.check(text):
            raise CommandError(Code.BAD_ARGUMENT, f"'{text}' is not valid here: {self.describe()}.")
        return text

    def check(self, value: Value) -> bool:
        """Tell whether it is one that leaves room for two machines at least."""
        prefix = prefix_of(value) if isinstance(value, str) else None
        return prefix is not None and _LOWEST_PREFIX <= prefix <= _HIGHEST_PREFIX

    def describe(self) -> str:
        """Return the range in words."""
        return "a network mask from 255.0.0.0 to 255.255.255.252"


def plan_of(values: Values) -> Plan:
    """Return what the settings ask for. Raises NetworkNotSetError if they do not fit together, naming the variable."""
    if values.text("network.default_interface") == "wlan" and not values.text("wlan.ssid"):
        raise NetworkNotSetError("No network is set: give wlan.ssid the name of one, and wlan.password its password.")
    if values.flag("network.dhcp"):
        return Plan()
    ip, gateway = values.text("network.static.ip"), values.text("network.static.gateway")
    prefix = prefix_of(values.text("network.static.netmask")) or 0
    if not ip:
        raise NetworkNotSetError("network.dhcp is 0, but there is no fixed address: set network.static.ip.")
    number = to_number(ip) or 0
    host = number & ~_mask(prefix)
    if host in (0, ~_mask(prefix) & _mask(_BITS)):
        raise NetworkNotSetError(f"{ip}/{prefix} is the address of a whole network: change network.static.ip.")
    if gateway and ((to_number(gateway) or 0) ^ number) & _mask(prefix):
        raise NetworkNotSetError(
            f"The gateway {gateway} is not in the network of {ip}/{prefix}: change network.static.gateway or .netmask."
        )
    if gateway == ip:
        raise NetworkNotSetError(f"{ip} cannot be address and gateway at once: change network.static.gateway.")
    return Plan(Mode.STATIC, ip, prefix, gateway, values.text("network.static.dns"))


def plan_at_start(values: Values) -> tuple[Plan, str]:
    """Return the plan to begin with and what is wrong with the settings, or nothing.

    Settings that cannot be used must not leave the device without any address, in every slot and in safe mode: then DHCP is
    asked. Who brings the network up by a command hears what is wrong.
    """
    try:
        return plan_of(values), ""
    except NetworkNotSetError as error:
        return DEFAULT, str(error)


def why_no_network(plan: Plan, problem: str, *, carrier: bool, ip: str) -> NetworkError | None:
    """Return why nothing can be reached; None: the network is there. `problem`: what is wrong with the settings."""
    if ip and carrier:
        return None
    if problem:
        return NetworkNotSetError(problem)
    if plan.mode is Mode.DOWN:
        return JoinFailedError("The network is down; 'network_up' brings it up.")
    if not carrier:
        return JoinFailedError("The network interface has no link: check the cable, or that the network is there.")
    if plan.mode is Mode.DHCP:
        return JoinFailedError("No DHCP server answers; check the network, or set a fixed address (network.dhcp 0).")
    return JoinFailedError("The network interface has no address; try 'network_restart'.")
