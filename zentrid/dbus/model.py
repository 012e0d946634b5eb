"""What the properties say, and how they follow from the command language's answers and from events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

MAX_FAULT_LINES: Final = 64
_SLOT_COLUMNS: Final = ("#", "slot", "version", "state", "tries", "good", "runs")
_NOT_COUNTED: Final = -1
_SUCCESSES: Final = ("installed",)
_QUIET: Final = frozenset(("idle", "checking"))


@dataclass(frozen=True)
class Slot:
    """One slot, as `slots` prints it."""

    name: str
    version: str
    """Empty: there is none, or it cannot be read."""
    state: str
    tries: int
    """-1: not counted."""
    good: bool
    running: bool


@dataclass(frozen=True)
class Progress:
    """How far an update is."""

    percent: int = 0
    message: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Properties:
    """All properties at one moment; each field is one of them."""

    version: str = ""
    state: str = "idle"
    progress: Progress = Progress()
    available: str = ""
    slots: tuple[Slot, ...] = ()
    boot_good: bool = False
    safe_mode: bool = False
    faults: tuple[str, ...] = ()

    def changed_since(self, before: Properties) -> tuple[str, ...]:
        """Return the names of the fields that differ."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != getattr(before, f.name))


@dataclass(frozen=True)
class Completion:
    """How an update ended."""

    code: int
    message: str


# --- answers of commands ------------------------------------------------------------------------------------------------
def parse_slots(text: str) -> tuple[Slot, ...]:
    """Return what the command `slots` printed. Raises ValueError if that is no such table."""
    header, *rows = text.splitlines() or [""]
    if tuple(header.split()) != _SLOT_COLUMNS:
        raise ValueError(f"no table of slots: {header[:80]!r}")
    return tuple(_slot(row.split()) for row in rows if row.strip())


def _slot(cells: list[str]) -> Slot:
    if len(cells) != len(_SLOT_COLUMNS) - 1:
        raise ValueError(f"no row of the table of slots: {cells!r}")
    name, version, state, tries, good, runs = cells
    return Slot(
        name, "" if version == "-" else version, state, _NOT_COUNTED if tries == "-" else int(tries),
        good == "yes", runs == "yes",
    )  # fmt: skip


def parse_faults(text: str) -> tuple[str, ...]:
    """Return the faults that the command `faults_print` printed, without their numbers."""
    lines = [line for line in text.splitlines() if line.strip()]
    if lines == ["No faults"]:
        return ()
    return tuple(line.partition(": ")[2] or line for line in lines[:MAX_FAULT_LINES])


# --- events -----------------------------------------------------------------------------------------------------------------
def follow(now: Properties, event: Mapping[str, Any]) -> Properties:
    """Return the properties after an event, as far as the event itself tells; what it does not tell is to be read anew."""
    match event.get("event"):
        case "update":
            return _stage(now, str(event.get("state", "")))
        case "update_progress":
            return _step(now, event)
        case "update_available":
            return replace(now, available=str(event.get("version", "")))
        case "boot_good":
            return replace(now, boot_good=True)
    return now


def _stage(now: Properties, state: str) -> Properties:
    if state == "idle":
        return replace(now, state=state, progress=Progress(now.progress.percent))
    percent = 0 if state == "checking" else now.progress.percent
    return replace(now, state=state, progress=Progress(percent, state, 1))


def _step(now: Properties, event: Mapping[str, Any]) -> Properties:
    try:
        percent = max(0, min(100, int(event.get("percent", 0))))
    except (TypeError, ValueError):
        return now
    message = f"{event.get('state', '')} release {event.get('version', '')}"
    return replace(now, progress=Progress(percent, message, 2))


def wants_reading(event: Mapping[str, Any]) -> bool:
    """Tell whether an event changes what only commands tell: slots, faults, the release that is available."""
    if event.get("event") == "update":
        return event.get("state") in ("idle", "rebooting")
    return event.get("event") in ("slot", "boot_good", "fault", "update_available")


def completion(event: Mapping[str, Any]) -> Completion | None:
    """Return how an update ended, if the event is the end of one. Looking and finding nothing new is none."""
    if event.get("event") != "update":
        return None
    state, outcome = str(event.get("state", "")), str(event.get("outcome", ""))
    release = f"release {event['version']}" if event.get("version") else "the update"
    if state == "rebooting":
        return Completion(0, f"{release} is installed and waits for a restart")
    if state != "idle" or not outcome:
        return None
    reason = f" ({event['reason']})" if event.get("reason") else ""
    return Completion(0 if outcome in _SUCCESSES else 1, f"{release}: {outcome.replace('_', ' ')}{reason}")


class Endings:
    """Makes one `Completed` of what two sources tell: events, and the answer to an update that began at this door.

    The answer has the better sentence and is there even when nothing began; the event of the same end may come before or
    after it.
    """

    def __init__(self) -> None:
        self._own = False
        self._begun = False
        self._told = False
        self._expected = False
        self._promised = False

    def asked(self) -> None:
        """An update is asked for at this door."""
        self._own, self._begun, self._told, self._expected, self._promised = True, False, False, False, False

    def promised(self) -> None:
        """Who asked was told that it has begun: the answer is signalled, even if it is a late refusal."""
        self._promised = True

    def heard(self, event: Mapping[str, Any]) -> Completion | None:
        """Take an event; return what is to be signalled."""
        if event.get("event") == "update" and event.get("before") == "idle":
            self._begun, self._expected = True, False
        ended = completion(event)
        if ended is None:
            return None
        if self._own and self._begun:
            self._told = True
            return None
        if self._expected:
            self._expected = False
            return None
        return ended

    def answered(self, code: int, message: str) -> Completion | None:
        """Take the answer; return what is to be signalled: nothing if it was refused, and who asked is told so."""
        begun, self._own = self._begun, False
        self._expected = begun and not self._told
        return Completion(code, message) if begun or self._promised or not code else None
