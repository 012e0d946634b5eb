"""Names that clients in the field use: long and short ones of commands, and of variables, never change."""

from __future__ import annotations

import pytest

from zentrid.commands.catalog import build_registry
from zentrid.core.variable_list import VARIABLES

COMMANDS = """
get get; set set; save save; load load; version ver; help help; reboot reboot; ota ota; slots slots; events events; items items
dms claim = dms_claim; dms activate = dms_activate; dms status = dms_status; faults_print faup; faults_reset faur
factory_reset fac; force_safemode force_safemode; app app
gpio_dir gdi; gpio_get gge; gpio_set gse; gpios_get gges
ping ping; nslookup nlo; network_up nup; network_down ndo; network_restart nre; network_verify nve
"""
VARIABLE_NAMES = """
system.uuid sy u; system.cmd.echo sy c e; system.cmd.prompt_enabled sy c p; system.cmd.header_enabled sy c h
system.cmd.buffered sy c b; system.cmd.format sy c f; system.print_level sy p; system.version sy v; system.name sy n
wlan.mac wl m; wlan.ssid wl s; wlan.password wl p; network.default_interface ne f; network.ip ne i; network.dhcp ne d
network.mac ne m; network.dns ne s; dms.bundle_id dm b; dms.ota_result dm o; dms.host dm h; gpio.init.3 gp i 3
"""


def entries(text: str) -> list[tuple[str, str]]:
    pairs = [entry.strip() for line in text.strip().splitlines() for entry in line.split(";")]
    return [
        (long.strip(), short.strip())
        for entry in pairs
        for long, _, short in [entry.partition(" = " if " = " in entry else " ")]
    ]


@pytest.mark.parametrize(("long", "short"), entries(COMMANDS))
def test_commands(long: str, short: str) -> None:
    registry = build_registry()
    found = registry.find(long.split())
    assert found is not None
    assert (found[0].name, found[0].short_name, found[1]) == (long, short, ())
    assert registry.find(short.split()) == found


@pytest.mark.parametrize(("long", "short"), entries(VARIABLE_NAMES))
def test_variables(long: str, short: str) -> None:
    variable = VARIABLES[long]
    assert variable.short == short
    assert VARIABLES.find(short.split()) == (variable, ())


def test_a_short_name_is_one_word_so_that_clients_can_make_a_method_of_it() -> None:
    for command in build_registry():
        assert command.short_name.isidentifier(), command.name


def test_the_older_name_of_the_format() -> None:
    assert VARIABLES.find(["system.cmd.mode"]) == (VARIABLES["system.cmd.format"], ())
