"""The update's memory across restarts: one small file, replaced atomically, written before what it announces happens."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from zentrid.core.names import SLOTS, SlotName
from zentrid.core.update import State
from zentrid.update.durable import Hook, no_hook, write_durable
from zentrid.update.errors import Result, printable

_MAX_BYTES: Final = 64 * 1024
_MAX_TEXT_CHARS: Final = 600
_REPORT_ID = re.compile(r"[0-9a-f-]{36}")


FIRMWARE: Final = "firmware"
ITEMS: Final = "items"
"""What an update changes: a slot (and with it the applications and files of that slot), or only those of the running one."""


@dataclass(frozen=True)
class Entry:
    """Where the current or last update stands."""

    state: State = State.IDLE
    update_id: str = ""
    """A UUID, made when the update begins; also the id of the report of its outcome."""
    from_version: str = ""
    to_version: str = ""
    target: SlotName = "a"
    scope: str = FIRMWARE
    starts: int = 0
    """So often the supervisor has started while applications and files were on trial, the switch included."""
    boot_floor: str = ""
    """What the new release asks for once it is healthy; empty: nothing."""
    unhealthy: str = ""
    """Why the supervisor gave up the new release's first boot; empty: it did not, or had no time to."""
    result: int = int(Result.NONE)
    """`dms.ota_result` of the last update."""
    failed_version: str = ""
    """The release that was rolled back last; nothing installs it again by itself."""
    then: str = ""
    """The release that this one is a step towards; empty: it is where the device was to go."""
    steps: int = 0
    """How many steps were installed on the way to `then`."""
    by_itself: bool = False
    """The way began without a person (`dms.auto`)."""
    pending: dict[str, Any] = field(default_factory=dict)
    """The report of the outcome, until it is in the outbox."""


class Journal:
    """The journal file. A lost or damaged one counts as no update under way: the slots themselves stay what they are."""

    def __init__(self, path: Path, hook: Hook = no_hook) -> None:
        self._path = path
        self._hook = hook
        self._lock = threading.Lock()
        """Saving happens in threads: one after the other."""
        self.entry = self._load()

    def save(self, **changes: Any) -> Entry:  # noqa: ANN401
        """Change the entry and make it durable before returning it. Raises OSError; the entry is then unchanged."""
        with self._lock:
            changed = replace(self.entry, **changes)
            text = json.dumps({**asdict(changed), "state": changed.state.value}, indent=1)
            write_durable(self._path, text.encode(), self._hook)
            # What was remembered meanwhile stays.
            self.entry = replace(self.entry, **changes)
            return self.entry

    def remember(self, **changes: Any) -> Entry:  # noqa: ANN401
        """Change the entry in memory only: for states that have changed nothing yet."""
        self.entry = replace(self.entry, **changes)
        return self.entry

    def _load(self) -> Entry:
        try:
            with self._path.open("rb") as file:
                value = json.loads(file.read(_MAX_BYTES))
            return _entry(value)
        except (OSError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
            return Entry()


def _entry(value: dict[str, Any]) -> Entry:
    texts = ("update_id", "from_version", "to_version", "boot_floor", "unhealthy", "failed_version")
    pending = value["pending"]
    if value["target"] not in SLOTS or not isinstance(pending, dict):
        raise ValueError(value["target"])
    if not _REPORT_ID.fullmatch(str(pending.get("id", ""))):
        pending = {}  # the id becomes a file's name; a report without one could never be sent
    return Entry(
        state=State(value["state"]),
        target=cast("SlotName", value["target"]),
        result=int(value["result"]),
        pending=pending,
        # Releases before these were there left journals without them.
        scope=ITEMS if value.get("scope") == ITEMS else FIRMWARE,
        starts=int(value.get("starts", 0)),
        then=printable(str(value.get("then", "")), _MAX_TEXT_CHARS),
        steps=int(value.get("steps", 0)),
        by_itself=value.get("by_itself") is True,
        **{name: printable(str(value[name]), _MAX_TEXT_CHARS) for name in texts},
    )
