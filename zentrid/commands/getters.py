"""Where the values of dynamic variables come from. Getters may block briefly: they are called off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from zentrid.commands.context import Context, NetworkFacts
from zentrid.http.config import http_port

Getter = Callable[[Context], str]
"""May raise ZentriError or OSError; the variable then is shown as not available, with the reason."""


def _network(field: Callable[[NetworkFacts], str]) -> Getter:
    """Return a getter for an address in use; empty while there is no network."""

    def get(ctx: Context) -> str:
        facts = ctx.host.network()
        return "" if facts is None else field(facts)

    return get


def _known(fact: str, default: str = "") -> Getter:
    return lambda ctx: ctx.dms_facts.get(fact, default)


GETTERS: Final[dict[str, Getter]] = {
    "system.version": Context.version_line,
    "system.uuid": lambda ctx: ctx.identity.uuid,
    "system.uptime": lambda ctx: str(int(ctx.clock.uptime_s())),
    "system.utc": Context.utc_text,
    "system.memory": lambda ctx: str(ctx.host.memory_available_bytes()),
    "system.build": lambda ctx: ctx.release.built,
    "system.safemode.status": lambda ctx: "1" if ctx.safe_mode else "0",
    "system.boot.slot": lambda ctx: ctx.running_slot,
    "system.boot.good": lambda ctx: "1" if ctx.boot_health()[0] else "0",
    "system.boot.health": lambda ctx: ctx.boot_health()[1],
    "system.fault.count": lambda ctx: str(ctx.boot_state.read().faults),
    "dms.host": lambda ctx: ctx.dms_server()[0],
    "dms.port": lambda ctx: str(ctx.dms_server()[1]),
    "dms.claimed": _known("claimed", "0"),
    "dms.product": _known("product"),
    "dms.tag": _known("tag"),
    "dms.bundle_id": lambda ctx: f"{ctx.release.product}-{ctx.release.version}",
    "dms.ota_result": lambda ctx: str(ctx.updates.last_result),
    "ota.state": lambda ctx: ctx.updates.state,
    "ota.progress": lambda ctx: str(ctx.updates.percent),
    "ota.bytes": lambda ctx: str(ctx.update_runner.received_bytes),
    "ota.available": lambda ctx: ctx.updates.available,
    "network.ip": _network(lambda facts: facts.ip),
    "network.netmask": _network(lambda facts: facts.netmask),
    "network.gateway": _network(lambda facts: facts.gateway),
    "network.dns": _network(lambda facts: facts.dns),
    "http.server.port": lambda ctx: str(http_port(ctx.settings.values)),
    "network.mac": lambda ctx: ctx.identity.mac,
    "network.status": lambda ctx: str(ctx.network.trouble() or "up"),
    "wlan.mac": lambda ctx: ctx.identity.mac,
    "gpio.state": lambda ctx: " ".join(f"{pin.number}:{pin.level}" for pin in ctx.gpios.pins()),
}
