"""The device's regular contact with its server: what it needs from the device, and what the server may ask for.

Pure: the answer of the server comes through the worker, which is not trusted, so everything is typed and bounded here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger(__name__)

FACTORY_RESET: Final = "factory_reset"
COMMANDS_AT_ONCE: Final = 4
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


@dataclass(frozen=True)
class ServerCommand:
    """What the device's owner asks for through the server."""

    id: str
    """A UUID, lower case."""
    kind: str
    """`factory_reset`, or a word that this release does not know."""
    settings_only: bool
    """For a factory reset: files and applications stay."""


def parse_commands(values: Mapping[str, Any]) -> tuple[ServerCommand, ...]:
    """Return the commands in a status, oldest first; what has not the right form is passed over and logged."""
    found = values.get("commands")
    if not isinstance(found, list):
        return ()
    commands: list[ServerCommand] = []
    for entry in found[:COMMANDS_AT_ONCE]:
        command = _command(entry)
        if command is None:
            log.warning("dms: a command in the server's answer has not the right form; it is passed over")
        else:
            commands.append(command)
    return tuple(commands)


def _command(entry: object) -> ServerCommand | None:
    if not isinstance(entry, dict):
        return None
    command_id, kind, settings_only = entry.get("id"), entry.get("command"), entry.get("settings_only", False)
    if not (isinstance(command_id, str) and isinstance(kind, str) and isinstance(settings_only, bool)):
        return None
    if _ID.fullmatch(command_id) is None or _KIND.fullmatch(kind) is None:
        return None
    return ServerCommand(command_id, kind, settings_only)


def decide(command: ServerCommand, *, enabled: bool) -> tuple[bool, str]:
    """Return whether the command may be carried out, and a sentence for its owner. `enabled`: `dms.cmd.enabled`."""
    if command.kind != FACTORY_RESET:
        return False, "this release does not know that command; update the device first"
    if not enabled:
        return False, "the device takes no commands from the server (dms.cmd.enabled is 0)"
    return True, "resetting the settings now" if command.settings_only else "resetting everything now"


def _no_contact() -> int:
    return 0


def _forget(_facts: Mapping[str, str]) -> None:
    """Do nothing with them."""


def _refuse(command: ServerCommand) -> tuple[bool, str]:
    return decide(command, enabled=False)


async def _ignore(_command: ServerCommand) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Contact:
    """What the regular contact needs from the device; the defaults: none, and nothing is done."""

    interval_s: Callable[[], int] = _no_contact
    """`dms.interval`; 0: the server is not asked regularly."""
    note: Callable[[Mapping[str, str]], None] = _forget
    """Gets what the server said: `claimed` (0/1), `owner`, `product`, `tag`, `time`."""
    may: Callable[[ServerCommand], tuple[bool, str]] = _refuse
    """Decides, without effects, whether a command is carried out; the sentence goes to its owner."""
    act: Callable[[ServerCommand], Awaitable[None]] = _ignore
    """Carries out a command; called at most once for each, after the server has the answer."""
