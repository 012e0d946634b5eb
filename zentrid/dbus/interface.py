"""`com.zentri.Device1`, declared once: methods, properties and signals, from which the introspection is made. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import quoteattr

NAME: Final = "com.zentri.Device1"
"""The bus name, and the interface."""
PATH: Final = "/com/zentri/Device1"
ERROR: Final = "com.zentri.Error"
"""Errors are called this, a dot and one word."""


@dataclass(frozen=True)
class Arg:
    """One argument: its name and its D-Bus type."""

    name: str
    signature: str


@dataclass(frozen=True)
class Method:
    """A method, and the command whose doing it is."""

    name: str
    command: str
    """Empty: whichever command the caller wants."""
    help: str
    takes: tuple[Arg, ...] = ()
    gives: tuple[Arg, ...] = ()


@dataclass(frozen=True)
class Property:
    """A property to read; its changes are signalled."""

    name: str
    signature: str
    help: str


@dataclass(frozen=True)
class Signal:
    """A signal."""

    name: str
    help: str
    args: tuple[Arg, ...] = ()


METHODS: Final = (
    Method(
        "Command", "",
        "carry out one line of the command language; a command that fails is no D-Bus error, it has a code other than 0",
        (Arg("line", "s"),), (Arg("code", "i"), Arg("response", "s"), Arg("log", "as")),
    ),
    Method(
        "CommandData", "",
        "the same for commands that take bytes after their line, or answer with bytes",
        (Arg("line", "s"), Arg("data", "ay")), (Arg("code", "i"), Arg("response", "ay"), Arg("log", "as")),
    ),
    Method(
        "Install", "ota",
        "start an update: source empty for the server, or a bundle's path or address; options: version (s), force (b). "
        "Returns when it has begun; Completed tells how it ended",
        (Arg("source", "s"), Arg("options", "a{sv}")),
    ),
    Method("Cancel", "ota", "stop the running update, or take back an installed one before its restart"),
    Method(
        "MarkGood", "mark_good",
        "this boot is good, says who knows it better than waiting does; refused while something is wrong",
    ),
    Method("FaultsReset", "faults_reset", "forget all faults"),
    Method(
        "FactoryReset", "factory_reset",
        "forget settings, files and applications and restart; mac: this device's, so that it is no other by mistake",
        (Arg("mac", "s"), Arg("settings_only", "b")),
    ),
)  # fmt: skip

PROPERTIES: Final = (
    Property("Version", "s", "product, version, build time, Zentri version and board, as `version` prints them"),
    Property("State", "s", "the update's state: idle, checking, downloading, verifying, activating, rebooting, …"),
    Property(
        "Progress", "(isi)",
        "percent, message, depth: 0 while no update runs, 1 when a stage begins, 2 within a stage",
    ),
    Property("Available", "s", "the release that was found but not installed yet; empty: none"),
    Property("Slots", "a(sa{sv})", "each slot with version, state (s), tries (i, -1: not counted), good, running (b)"),
    Property("BootGood", "b", "this boot was marked good"),
    Property("SafeMode", "b", "the device is in safe mode"),
    Property("Faults", "as", "the faults counted, oldest first; eight lead to safe mode"),
)  # fmt: skip

SIGNALS: Final = (
    Signal(
        "Completed", "an update has ended, whoever began it: code 0 it is installed or not needed, else it failed; "
        "message says what became of it", (Arg("code", "i"), Arg("message", "s")),
    ),
)  # fmt: skip


def introspection() -> str:
    """Return the interface as D-Bus introspection XML, with each member's meaning."""
    lines = ["<node>", f"<interface name={quoteattr(NAME)}>"]
    for method in METHODS:
        lines.append(f"<method name={quoteattr(method.name)}>")
        lines += [_arg(arg, ' direction="in"') for arg in method.takes]
        lines += [_arg(arg, ' direction="out"') for arg in method.gives]
        lines += [_doc(method.help), "</method>"]
    for prop in PROPERTIES:
        lines.append(f'<property name={quoteattr(prop.name)} type={quoteattr(prop.signature)} access="read">')
        lines += [_doc(prop.help), "</property>"]
    for signal in SIGNALS:
        lines.append(f"<signal name={quoteattr(signal.name)}>")
        lines += [*(_arg(arg) for arg in signal.args), _doc(signal.help), "</signal>"]
    return "\n".join([*lines, "</interface>", "</node>"])


def _arg(arg: Arg, direction: str = "") -> str:
    return f"<arg name={quoteattr(arg.name)} type={quoteattr(arg.signature)}{direction}/>"


def _doc(text: str) -> str:
    # GLib's parser keeps annotations only; others skip what they do not know.
    return f'<annotation name="org.gtk.GDBus.DocString" value={quoteattr(text)}/>'
