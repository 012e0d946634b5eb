"""Ways back: factory reset and safe mode, both only for somebody who knows the device's MAC address."""

from __future__ import annotations

import asyncio
import re

from zentrid.commands.call import Call, Reply
from zentrid.commands.registry import Command
from zentrid.core.bootstate import BootState, Fault, add_fault
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError, Option
from zentrid.core.names import MAX_FAULTS
from zentrid.factoryreset import write_request

_SEPARATORS = re.compile(r"[:-]")
_MAC = Argument("mac", "this device's MAC address, so that it is not another one by mistake")


def same_mac(typed: str, own: str) -> bool:
    """Tell whether two MAC addresses are the same: with colons, dashes or neither, in capitals or not."""
    return _SEPARATORS.sub("", typed).upper() == _SEPARATORS.sub("", own).upper()


def _check_mac(call: Call) -> None:
    """Refuse a MAC address that is not this device's, before anything is changed."""
    if not same_mac(call.arguments.values["mac"], call.ctx.identity.mac):
        raise CommandError(
            Code.BAD_ARGUMENT,
            "That is not this device's MAC address, so nothing was changed; 'get network.mac' prints it.",
        )


async def _factory_reset(call: Call) -> Reply:
    _check_mac(call)
    await write_request(call.ctx.boot_state, settings_only=call.arguments.flag("s"))
    return Reply("Rebooting", then=lambda: call.ctx.power.reboot("factory reset: command"))


async def _force_safemode(call: Call) -> Reply:
    _check_mac(call)
    ctx = call.ctx
    fault = Fault(
        "forced", ctx.running_slot, ctx.release.version, int(ctx.clock.uptime_s()), ctx.utc_text(), "force_safemode"
    )

    def fill(state: BootState) -> BootState:
        for _ in range(MAX_FAULTS):
            state = add_fault(state, fault)
        return state

    await asyncio.to_thread(ctx.boot_state.update, fill)
    return Reply("Rebooting", then=lambda: ctx.power.reboot("safe mode asked for by command"))


COMMANDS = (
    Command(
        "factory_reset",
        "forget settings, files and applications and restart; firmware and identity stay",
        _factory_reset,
        "factory_reset 52:54:00:12:34:56",
        "fac",
        arguments=(_MAC,),
        options=(Option("s", "the settings only; files and applications stay"),),
    ),
    Command(
        "force_safemode",
        "restart into safe mode as after eight faults; 'faults_reset' and 'reboot' lead back",
        _force_safemode,
        "force_safemode 52:54:00:12:34:56",
        arguments=(_MAC,),
        safe_mode=False,
    ),
)
