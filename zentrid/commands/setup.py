"""The `setup` command: set-up mode, in which the web server shows the page for setting the device up."""

from __future__ import annotations

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError
from zentrid.http.config import http_port

_ACTIONS = ("web", "stop", "status")


async def _setup(call: Call) -> str | None:
    mode = call.ctx.setup
    if mode is None:
        raise CommandError(Code.FAILED, "This device has no set-up mode.")
    action = call.arguments.values.get("action", "status")
    if action == "web":
        mode.start()
    elif action == "stop":
        mode.stop()
        return None
    if not mode.on:
        return "off"
    return f"on for {mode.left_s:.0f} s more; open {_address(call)} in a browser"


def _address(call: Call) -> str:
    values = call.ctx.settings.values
    tls, port = values.flag("http.server.tls_enabled"), http_port(values)
    facts = call.ctx.host.network()
    host = facts.ip if facts is not None else "<the device's address>"
    return f"http{'s' if tls else ''}://{host}{'' if port == (443 if tls else 80) else f':{port}'}/"


COMMANDS = (
    Command(
        "setup",
        "set-up mode: the web server shows the page for setting the device up, for setup.web.timeout",
        _setup,
        "setup web",
        arguments=(Argument("action", "begin, end, or tell (if left out)", optional=True, choices=_ACTIONS),),
    ),
)
