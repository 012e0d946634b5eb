"""The declaration of `com.zentri.Device1`, its introspection, and what the documentation says of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from zentrid.commands.catalog import build_registry
from zentrid.dbus import interface

TOP = Path(__file__).resolve().parents[3]


def test_introspection_declares_every_member_with_its_meaning() -> None:
    node = ET.fromstring(interface.introspection())
    [found] = node.findall("interface")
    assert found.get("name") == interface.NAME
    for kind, declared in (
        ("method", interface.METHODS),
        ("property", interface.PROPERTIES),
        ("signal", interface.SIGNALS),
    ):
        members = found.findall(kind)
        assert [m.get("name") for m in members] == [d.name for d in declared]
        notes = [m.find("annotation") for m in members]
        assert [n.get("value") for n in notes if n is not None] == [d.help for d in declared]
    [install] = [m for m in found.findall("method") if m.get("name") == "Install"]
    assert [(a.get("name"), a.get("type"), a.get("direction")) for a in install.findall("arg")] == [
        ("source", "s", "in"), ("options", "a{sv}", "in"),
    ]  # fmt: skip


def test_every_method_is_a_command_that_there_is() -> None:
    names = {command.name for command in build_registry()}
    assert {method.command for method in interface.METHODS if method.command} <= names


def test_the_documentation_tells_of_every_member() -> None:
    text = (TOP / "docs/dbus.md").read_text()
    for member in (*interface.METHODS, *interface.PROPERTIES, *interface.SIGNALS):
        assert f"| `{member.name}" in text, member.name
