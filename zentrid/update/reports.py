"""What the server is told: the inventory that rides along with a check, an update's outcome, the reason of a rollback."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from zentrid.core.bootstate import BootState
from zentrid.core.names import SAFE_SLOT
from zentrid.ports import Release, SlotInfo, UpdateOptions
from zentrid.update.journal import Entry

_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,5}")
_MAX_REASON_CHARS = 64
_MAX_DETAIL_CHARS = 1000
_MAX_SENTENCE_CHARS = 160


def outcome_report(
    entry: Entry, outcome: str, reason: str, detail: str, running: str, moment: datetime
) -> dict[str, Any]:
    """Return the report of an update's outcome: one for each update, with the update's id."""
    return {
        "id": entry.update_id,
        "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "event": outcome,
        "version": _version(running),
        "from": _version(entry.from_version),
        "to": _version(entry.to_version),
        "reason": reason[:_MAX_REASON_CHARS] or None,
        "detail": detail[:_MAX_DETAIL_CHARS] or None,
    }


def progress_report(entry: Entry, step: str, detail: str, running: str, moment: datetime) -> dict[str, Any]:
    """Return the report of a step in between; its id follows from the update's, so it counts once however often it is sent."""
    report = outcome_report(entry, "progress", step, detail, running, moment)
    return {**report, "id": str(uuid5(UUID(entry.update_id), step))}


def inventory(release: Release, boot: BootState, slots: Sequence[SlotInfo], options: UpdateOptions) -> dict[str, Any]:
    """Return the body of a check: what runs here, what lies in the slots, what is wanted."""
    return {
        "version": release.version,
        "product": release.product,
        "board": release.board,
        "slots": [{"slot": info.slot, "version": info.version, "state": info.state} for info in slots],
        "safemode": any(info.running and info.slot == SAFE_SLOT for info in slots),
        "faults": boot.faults,
        "force": options.force,
        "want": options.version,
    }


def command_report(command_id: str, accepted: bool, sentence: str, running: str, moment: datetime) -> dict[str, Any]:
    """Return the answer to a command of the server; its id is the command's."""
    return {
        "id": command_id,
        "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "event": "command",
        "version": _version(running),
        "reason": "accepted" if accepted else "refused",
        "detail": sentence[:_MAX_SENTENCE_CHARS],
    }


def status_facts(running: str, safe_mode: bool, faults: int | None) -> dict[str, str]:
    """Return what rides along with the question for the status: what runs here, and how it is. `faults` None: not known."""
    facts = {"safemode": "1" if safe_mode else "0"}
    version = _version(running)
    facts |= {} if version is None else {"version": version}
    return facts | ({} if faults is None else {"faults": str(faults)})


def why_rolled_back(entry: Entry, boot: BootState) -> tuple[str, str]:
    """Return reason and sentence for a new release that does not run any more.

    The supervisor's own record comes first; else the newest fault of the target; else it never came up.
    """
    if entry.unhealthy:
        return "unhealthy", f"release {entry.to_version} was not healthy in time: {entry.unhealthy}"
    for fault in reversed(boot.fault_records):
        if fault.slot == entry.target and fault.version in (entry.to_version, "?"):
            detail = f": {fault.detail}" if fault.detail else ""
            return fault.cause[
                :_MAX_REASON_CHARS
            ], f"release {entry.to_version} ended in a fault ({fault.cause}{detail})"
    return "did_not_start", f"release {entry.to_version} did not start, or never became healthy, in slot {entry.target}"


def _version(text: str) -> str | None:
    return text if _VERSION.fullmatch(text) else None
