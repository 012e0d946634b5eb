"""The `app` command: the boot application and the packages that could be one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.commands.table import columns, fitting
from zentrid.core.apps import AppInfo
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError, Option

DEFAULT_LINES: Final = 40
MAX_LINES: Final = 1000
_ACTIONS: Final = ("list", "start", "stop", "restart", "log")


async def _app(call: Call) -> str:
    action = call.arguments.values.get("action", "list")
    if call.arguments.options and action != "log":
        raise CommandError(Code.UNKNOWN_OPTION, f"'app {action}' has no options; 'app log -n <lines>' has.")
    if action == "list":
        infos = await asyncio.to_thread(call.ctx.apps.list)
        return app_lines(infos, call.ctx.clock.utc()) if infos else "No applications"
    _check_name(call)
    if action == "log":
        lines = await asyncio.to_thread(call.ctx.apps.log_lines, _count(call))
        return "\n".join(fitting(lines)) or "The log is empty"
    if call.ctx.safe_mode:
        raise CommandError(
            Code.FAILED,
            "The boot application does not run in safe mode. To leave safe mode: repair or update the device, then "
            "'faults_reset' and 'reboot'.",
        )
    apps = call.ctx.apps
    return await {"start": apps.start, "stop": apps.stop_by_hand, "restart": apps.restart}[action]()


def _check_name(call: Call) -> None:
    """A name may be given; it can only be the boot application's."""
    name, boot = call.arguments.values.get("name"), call.ctx.apps.name
    if name is not None and name != boot:
        runs = f"only the boot application '{boot}' does" if boot else "no boot application is set"
        raise CommandError(Code.BAD_ARGUMENT, f"'{name}' does not run here: {runs}; see 'system.boot.app'.")


def _count(call: Call) -> int:
    text = call.arguments.options.get("n", str(DEFAULT_LINES))
    if not (text.isascii() and text.isdigit()):
        raise CommandError(Code.BAD_ARGUMENT, f"-n: '{text}' is no number of lines.")
    if len(text) > 4 or not 1 <= int(text) <= MAX_LINES:
        raise CommandError(Code.OUT_OF_BOUNDS, f"-n: 1 to {MAX_LINES} lines.")
    return int(text)


def app_lines(infos: Sequence[AppInfo], now: datetime) -> str:
    """Return the applications as a table: the header begins with `#`, columns are separated by blanks."""
    rows = [("# name", "version", "boot", "state", "pid", "since", "restarts", "source", "description")]
    rows += [
        (
            f"  {info.name}",
            info.version,
            "yes" if info.boot else "no",
            info.state,
            "-" if info.pid is None else str(info.pid),
            "-" if info.since_s is None else (now - timedelta(seconds=info.since_s)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            str(info.restarts),
            info.source,
            info.description,
        )
        for info in infos
    ]
    return columns(rows)


COMMANDS = (
    Command(
        "app",
        "the boot application: list (with the packages that could be one), start, stop, restart it, print its log",
        _app,
        "app log -n 20",
        arguments=(
            Argument("action", "what to do; list if it is left out", optional=True, choices=_ACTIONS),
            Argument("name", "the boot application's name, to be sure", optional=True),
        ),
        options=(Option("n", f"so many lines of the log, at most {MAX_LINES}; {DEFAULT_LINES} if left out", "lines"),),
    ),
)
