"""When the device puts Web App files in place by itself, and when it leaves what its owner has made of them. Pure.

A record tells what was put there last. What is in use (the image's copy, and what bundles brought to the running slot) is put
there once for each content, and only over what the device itself has put there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from zentrid.core.webapp import LIST_NAME, MAX_FILES, AppList, checked_name

MAX_RECORD_BYTES: Final = 256 * 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAMES_TOLD: Final = 3
_MOST: Final = 4
"""So many Web Apps, of which parts may be there after as many interruptions, a record can tell of."""


@dataclass(frozen=True)
class Placed:
    """The record of what was put in place."""

    offered: str
    """The id of the list that was in use then: it is not put in place again by itself."""
    version: str
    files: Mapping[str, str]
    """SHA-256 of each file, the list included."""
    before: Mapping[str, str]
    """While `done` is false: what had been put there before, or is being replaced; some of it may still be there."""
    done: bool

    def to_bytes(self) -> bytes:
        """Return it as it is kept."""
        return json.dumps({**vars(self), "files": dict(self.files), "before": dict(self.before)}, indent=1).encode()


def parse_placed(raw: bytes) -> Placed | None:
    """Return the record; None for anything that is none: then nothing is known."""
    if len(raw) > MAX_RECORD_BYTES:
        return None
    try:
        value = json.loads(raw)
        record = Placed(**value)
        sound = (
            isinstance(record.offered, str)
            and isinstance(record.version, str)
            and isinstance(record.done, bool)
            and all(_are_hashes(files) for files in (record.files, record.before))
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return record if sound else None


def _are_hashes(files: Mapping[str, str]) -> bool:
    return len(files) <= _MOST * MAX_FILES and all(
        checked_name(name) is not None and isinstance(digest, str) and bool(_SHA256.fullmatch(digest))
        for name, digest in files.items()
    )


def hashes_of(wanted: AppList) -> dict[str, str]:
    """Return the SHA-256 of each file that a Web App consists of, its list included."""
    return {**{name: entry.sha256 for name, entry in wanted.files.items()}, LIST_NAME: wanted.id}


def begun(wanted: AppList, offered: str, last: Placed | None, replaced: Mapping[str, str] | None = None) -> Placed:
    """Return the record for the time in which files are put in place.

    `replaced`: SHA-256 of what is there and is to be replaced: if that is interrupted it is nobody's any more.
    """
    before: Mapping[str, str] = {}
    if last is not None:
        before = last.files if last.done else {**last.files, **last.before}
    before = {**before, **(replaced or {})}
    return Placed(offered, wanted.version, hashes_of(wanted), before, done=False)


def ended(record: Placed) -> Placed:
    """Return the record when all files are in place."""
    return replace(record, before={}, done=True)


def gone(record: Placed, present: Mapping[str, str]) -> list[str]:
    """Return the files of before that do not belong to the Web App any more and that nobody has changed."""
    return sorted(
        name for name, digest in record.before.items() if name not in record.files and present.get(name) == digest
    )


class What(Enum):
    """What is to be done by itself."""

    NOTHING = "nothing"
    PLACE = "place"
    NOTE = "note"
    """Everything is there already: only the record is missing."""
    LEAVE = "leave"
    """The owner's own is there."""


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why, for the log."""

    what: What
    why: str = ""


def decide(
    wanted: AppList, last: Placed | None, present: Mapping[str, str], *, safe_mode: bool, root_is_default: bool
) -> Decision:
    """Return what is to be done now that `wanted` is in use. `present`: SHA-256 of each file in the Web App's folder."""
    if safe_mode:
        return Decision(What.NOTHING, "in safe mode nothing is put in place by itself")
    if last is not None and last.done and last.offered == wanted.id:
        return Decision(What.NOTHING, "it was put in place before")
    if not root_is_default:
        return Decision(What.LEAVE, "http.server.root_filename names a page of the owner's")
    new = hashes_of(wanted)
    if last is None:
        if not present:
            return Decision(What.PLACE, "there is none yet")
        if all(present.get(name) == digest for name, digest in new.items()):
            return Decision(What.NOTE, "it is there already")
        return Decision(What.LEAVE, "there are files that the device did not put there")
    owners = _owners(new, last, present)
    if owners:
        more = f" and {len(owners) - _NAMES_TOLD} more" if len(owners) > _NAMES_TOLD else ""
        return Decision(What.LEAVE, f"the owner has changed {', '.join(owners[:_NAMES_TOLD])}{more}")
    return Decision(What.PLACE, "another one is in use" if last.done else "it was not finished")


def _owners(new: Mapping[str, str], last: Placed, present: Mapping[str, str]) -> list[str]:
    """Return the files that the owner has changed, removed, or put where a new one would go."""
    found = set()
    for name in {*new, *last.files, *last.before}:
        digest = present.get(name)
        known = {files[name] for files in (new, last.files, last.before) if name in files}
        if digest is None:
            # Of something that was not finished any file may be missing.
            if last.done and name in last.files:
                found.add(name)
        elif digest not in known:
            found.add(name)
    return sorted(found)
