"""What happens on the device, for those who follow it: typed events, and the queue of one follower. Pure.

Followers are the log, the command `events`, and later doors. A slow follower misses steps of progress, never a change of state:
one that falls so far behind that even those do not fit is told that it did, instead of going on with a gap.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

PROGRESS_KEPT: Final = 16
CHANGES_KEPT: Final = 256
COARSE_PERCENT: Final = 10


@dataclass(frozen=True)
class DeviceEvent:
    """Something that happened."""

    kind: ClassVar[str] = "event"
    progress: ClassVar[bool] = False
    """A newer one makes this one worthless, so it may be left out."""

    @property
    def routine(self) -> bool:
        """Whether it comes with every look at the server or every tenth of an update: nothing for a log."""
        return self.progress

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object; fields that say nothing are left out."""
        return {"event": self.kind, **{name: value for name, value in asdict(self).items() if value != ""}}

    def sentence(self) -> str:
        """Return the event as a line for people."""
        return self.kind


@dataclass(frozen=True)
class UpdateChanged(DeviceEvent):
    """The update's state changed."""

    kind: ClassVar[str] = "update"
    before: str
    state: str
    version: str = ""
    """The release that the update is about; empty while it is not known."""
    outcome: str = ""
    """With the last change: `installed`, `rolled_back`, `failed`, `cancelled`; empty: there was nothing to do."""
    reason: str = ""
    """One word, with an outcome that is not `installed`."""

    @property
    def routine(self) -> bool:
        """Whether it is only about looking."""
        return not self.outcome and {self.before, self.state} == {"idle", "checking"}

    def sentence(self) -> str:
        """Return the event as a line for people."""
        text = f"update: {self.before} -> {self.state}" + (f", release {self.version}" if self.version else "")
        text += f", {self.outcome.replace('_', ' ')}" if self.outcome else ""
        return text + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class UpdateAdvanced(DeviceEvent):
    """The running update has come a good step further."""

    kind: ClassVar[str] = "update_progress"
    progress: ClassVar[bool] = True
    state: str
    version: str
    percent: int
    received_bytes: int

    def sentence(self) -> str:
        """Return the event as a line for people."""
        return f"update: {self.state} release {self.version}, {self.percent} %, {self.received_bytes} bytes received"


@dataclass(frozen=True)
class UpdateAvailable(DeviceEvent):
    """A look at the server has found a release for this device."""

    kind: ClassVar[str] = "update_available"
    version: str

    def sentence(self) -> str:
        """Return the event as a line for people."""
        return f"update: release {self.version} is available"


@dataclass(frozen=True)
class SlotChanged(DeviceEvent):
    """What a slot is good for changed."""

    kind: ClassVar[str] = "slot"
    slot: str
    change: str
    """`emptied` (loses its tries: it is about to be written), `activated`, `taken_back`, `good`."""
    version: str

    def sentence(self) -> str:
        """Return the event as a line for people."""
        return f"slot {self.slot}: {self.change.replace('_', ' ')}" + (
            f", release {self.version}" if self.version else ""
        )


@dataclass(frozen=True)
class BootGood(DeviceEvent):
    """This boot was marked good."""

    kind: ClassVar[str] = "boot_good"
    slot: str
    version: str

    def sentence(self) -> str:
        """Return the event as a line for people."""
        return f"this boot is good: release {self.version} in slot {self.slot}"


@dataclass(frozen=True)
class FaultRecorded(DeviceEvent):
    """An exception of this boot was counted."""

    kind: ClassVar[str] = "fault"
    cause: str
    detail: str

    @property
    def routine(self) -> bool:
        """Whether it is nothing for a log: who records a fault has logged it."""
        return True

    def sentence(self) -> str:
        """Return the event as a line for people."""
        return f"fault: {self.cause}: {self.detail}"


class Steps:
    """Lets every tenth of an update through, once."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def is_new(self, state: str, percent: int) -> bool:
        """Tell whether this is another state or another tenth than last time."""
        step = (state, percent // COARSE_PERCENT)
        last, self._last = self._last, step
        return step != last


class Backlog:
    """What one follower has yet to see, in order and bounded."""

    def __init__(self, progress_kept: int = PROGRESS_KEPT, changes_kept: int = CHANGES_KEPT) -> None:
        self._progress_kept = progress_kept
        self._changes_kept = changes_kept
        self._events: deque[DeviceEvent] = deque()
        self.overrun = False
        """Changes of state did not fit any more: what is here is whole, what came after it is not."""

    def put(self, event: DeviceEvent) -> None:
        """Add an event; the oldest step of progress gives way to a newer one."""
        if self.overrun:
            return
        kept = [waiting for waiting in self._events if waiting.progress is event.progress]
        if len(kept) >= (self._progress_kept if event.progress else self._changes_kept):
            if not event.progress:
                self.overrun = True
                return
            self._events.remove(kept[0])
        self._events.append(event)

    def take(self) -> DeviceEvent | None:
        """Return the oldest one and forget it; None: there is none."""
        return self._events.popleft() if self._events else None

    def __len__(self) -> int:
        return len(self._events)
