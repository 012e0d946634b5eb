"""The network: bringing it up and down, and looking how far it reaches."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing

from zentrid.commands.call import Call, Reply
from zentrid.commands.registry import Command
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError, Option
from zentrid.core.probes import HOST, MAX_COUNT, Found, Lost, ProbeError, summary
from zentrid.core.probes import Reply as PingReply

_CHANGES = (
    "network.default_interface, network.dhcp, network.static.* and wlan.* take effect with this command, or at the next "
    "start once they are saved."
)


async def _up(call: Call) -> str:
    ip = await call.ctx.network.up()
    _say_if_unconfirmed(call)
    return f"Network up: {ip}"


def _say_if_unconfirmed(call: Call) -> None:
    if call.ctx.network.unconfirmed:
        call.out.log("No gateway, so nothing checks this address: 'network_verify' within 60 s keeps it.")


async def _down(call: Call) -> Reply:
    return Reply("Network down", then=call.ctx.network.down)


async def _restart(call: Call) -> str:
    ip = await call.ctx.network.restart()
    _say_if_unconfirmed(call)
    return f"Network up: {ip}"


async def _verify(call: Call) -> str:
    """Look at one thing after the other, from the cable to the name of the server, and stop at the first that is missing."""
    ctx = call.ctx
    if (trouble := await asyncio.to_thread(ctx.network.trouble)) is not None:
        raise trouble
    facts = await asyncio.to_thread(ctx.host.network)
    if facts is None:
        raise CommandError(Code.FAILED, "The address has just gone; try again.")
    ctx.network.confirm()  # whoever asks has come in by the address as it is now, or has another way to mend it
    call.out.log(f"address: {facts.ip}, {facts.netmask} ({ctx.network.how()})")
    if not facts.gateway:
        return "There is no gateway: this device reaches its own network only."
    if not await asyncio.to_thread(ctx.network.gateway_answers, facts.gateway):
        raise CommandError(
            Code.FAILED, f"The gateway {facts.gateway} does not answer; check its address and the cable."
        )
    call.out.log(f"gateway: {facts.gateway} is there")
    host, _ = ctx.dms_server()
    call.out.log(f"name server: {facts.dns or 'none'}; {host}: {', '.join(await _resolve(call, host))}")
    return "Network up"


async def _ping(call: Call) -> str:
    count = _count(call.arguments.options.get("n", "1"))
    host = _host(call.arguments.values.get("host") or await _gateway(call))
    replies: list[PingReply | Lost] = []
    async with aclosing(call.ctx.probes.ping(host, count)) as news:
        async for one in news:
            if isinstance(one, PingReply | Lost):
                replies.append(one)
                if count > 1:
                    call.out.log(f"Ping reply in {one.ms:.1f} ms" if isinstance(one, PingReply) else "No reply")
    return summary(host, replies)


async def _nslookup(call: Call) -> str:
    return "\n".join(await _resolve(call, _host(call.arguments.values["name"])))


async def _resolve(call: Call, name: str) -> list[str]:
    async with aclosing(call.ctx.probes.resolve(name)) as news:
        found = [one.address async for one in news if isinstance(one, Found)]
    if not found:
        raise ProbeError(f"There is no address for {name}; check the name.")
    return found


async def _gateway(call: Call) -> str:
    facts = await asyncio.to_thread(call.ctx.host.network)
    if facts is None or not facts.gateway:
        raise CommandError(Code.FAILED, "There is no gateway to ping; name a host, or see 'network_verify'.")
    return facts.gateway


def _host(word: str) -> str:
    if not re.fullmatch(HOST, word, re.ASCII):
        raise CommandError(Code.BAD_ARGUMENT, f"'{word}' is no name of a host and no IPv4 address.")
    return word


def _count(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 4):
        raise CommandError(Code.BAD_ARGUMENT, f"-n: '{word}' is no number.")
    if not 1 <= int(word) <= MAX_COUNT:
        raise CommandError(Code.OUT_OF_BOUNDS, f"-n: {int(word)} is out of bounds: 1 to {MAX_COUNT}.")
    return int(word)


COMMANDS = (
    Command(
        "network_up",
        "bring the network up as the settings say, if it is not; what does not come up is taken back",
        _up,
        "network_up",
        "nup",
        notes=_CHANGES,
    ),
    Command(
        "network_down",
        "take the network down until network_up or the next start",
        _down,
        "network_down",
        "ndo",
        notes="Whoever came over the network is cut off; the serial console stays.",
    ),
    Command(
        "network_restart",
        "bring the network up anew, with the settings as they are now; what does not come up is taken back",
        _restart,
        "network_restart",
        "nre",
        notes=f"{_CHANGES} If no address comes, or the gateway does not answer, what worked before is in use again. "
        "A fixed address without a gateway cannot be checked: it is taken back after 60 s, unless 'network_verify' confirms it. "
        "'save' afterwards: what is not saved is gone at the next start.",
    ),
    Command(
        "network_verify",
        "look how far the network reaches: settings, cable, address, gateway, name server",
        _verify,
        "network_verify",
        "nve",
        notes="It also confirms a fixed address without a gateway, which is taken back 60 s after network_restart otherwise.",
    ),
    Command(
        "ping",
        "ask whether a host answers, and how fast",
        _ping,
        "ping -n 3 10.0.2.2",
        arguments=(Argument("host", "a name or an IPv4 address; the gateway if left out", optional=True),),
        options=(Option("n", f"so many times, at most {MAX_COUNT}; once if left out", "times"),),
    ),
    Command(
        "nslookup",
        "print the addresses of a name, as updates would find them",
        _nslookup,
        "nslookup example.com",
        "nlo",
        arguments=(Argument("name", "a name or an address"),),
    ),
)
