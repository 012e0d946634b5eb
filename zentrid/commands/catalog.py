"""All commands of the device in one registry."""

from __future__ import annotations

from zentrid.commands import (
    app,
    dms,
    events,
    faults,
    files,
    gpio,
    help,
    httpclient,
    items,
    journal,
    network,
    ota,
    recovery,
    setup,
    streams,
    system,
    variables,
    webapp,
)
from zentrid.commands.registry import Registry
from zentrid.core.variable_list import VARIABLES


def build_registry() -> Registry:
    """Return the registry of all commands and variables; a new group of commands is one more entry here."""
    groups = (
        system, variables, faults, recovery, app, items, dms, ota, events, journal, files, streams, httpclient, network, gpio,
        setup, webapp, help,
    )  # fmt: skip
    return Registry([command for group in groups for command in group.COMMANDS], VARIABLES)
