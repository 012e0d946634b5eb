"""Keeps exceptions: counts them in the boot state, reports them, restarts into safe mode when there are eight.

The boot state is written first: it is what counts. A report that cannot be queued is logged and lost; the record is not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

from zentrid.core.bootstate import BootState, BootStateWriteError, Fault, add_fault
from zentrid.core.names import MAX_FAULTS, SAFE_SLOT, SlotName
from zentrid.core.text import printable
from zentrid.ports import BootStateStore, Frame

log = logging.getLogger(__name__)

DETAIL_CHARS: Final = 160
TEXT_BYTES: Final = 4096
MAX_FRAMES: Final = 32
_MODULE_CHARS: Final = 200
_SHORT_NAME_CHARS: Final = 40
REPORT_BYTES: Final = 7 * 1024
"""A report must fit the outbox, whatever the text becomes in JSON."""


class ReportBox(Protocol):
    """Where reports wait for the server."""

    def put(self, report: dict[str, Any]) -> None:
        """Queue one, durably. Raises OSError."""


class Clock(Protocol):
    """The time."""

    def utc(self) -> datetime:
        """Return the time now, in UTC."""

    def uptime_s(self) -> float:
        """Return the seconds since the board started."""


class FaultKeeper:
    """Implements `ports.FaultSink` for one boot."""

    def __init__(
        self,
        store: BootStateStore,
        outbox: ReportBox,
        clock: Clock,
        *,
        slot: SlotName,
        version: str,
        on_trial: Callable[[], bool] = lambda: False,
        posted: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what is needed. `on_trial`: the running release was never good; `posted` hears of each new report."""
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._slot = slot
        self.version: Callable[[], str] = lambda: version
        """Which release runs: a fault is dropped with the release that is taken back."""
        self._on_trial = on_trial
        self._posted = posted
        self.heard: Callable[[Fault], None] = lambda _fault: None
        """Called for each exception recorded."""
        self.on_eighth: Callable[[], None] = lambda: None
        """Called when there are eight and this is not safe mode yet: the board is to be restarted."""

    async def record(self, cause: str, detail: str, *, frames: Sequence[Frame] = (), text: str = "") -> None:
        """Record one exception of this boot: counted, kept, reported. Never raises; what fails is logged."""
        try:
            self.heard(await asyncio.to_thread(self.record_now, cause, detail, frames=frames, text=text))
        except Exception:
            log.exception("an exception (%s: %s) could not be recorded", cause, detail)
            self.heard(Fault(cause, self._slot, self.version(), 0, "?", one_line(detail)))
        if self.safe_mode_is_due():
            self.on_eighth()

    def record_now(self, cause: str, detail: str, *, frames: Sequence[Frame] = (), text: str = "") -> Fault:
        """Do the same at once, for a process that is about to end; restarts nothing. Returns what was recorded."""
        fault = Fault(
            cause, self._slot, self.version(), int(self._clock.uptime_s()), self._utc(), located(detail, frames)
        )
        log.error("fault: %s: %s", cause, fault.detail)
        most = MAX_FAULTS - 1 if self._on_trial() else MAX_FAULTS
        try:
            self._store.update(lambda state: add_fault(state, fault, most=most))
        except BootStateWriteError as error:
            log.error("the fault is not counted: %s", error)
        self.report_now(fault, frames=frames, text=text)
        return fault

    def report_now(self, fault: Fault, *, frames: Sequence[Frame] = (), text: str = "") -> None:
        """Queue a report about a fault that the boot state holds already."""
        try:
            self._outbox.put(fault_report(fault, self.version(), self._utc(), frames, text))
        except OSError as error:
            log.error("the fault cannot be reported: %s", error.strerror)
            return
        self._posted()

    def safe_mode_is_due(self) -> bool:
        """Tell whether eight faults ask for safe mode and this is not it."""
        return self._slot != SAFE_SLOT and self._faults() >= MAX_FAULTS

    def _faults(self) -> int:
        try:
            state: BootState = self._store.read()
        except Exception:
            log.exception("the fault counter cannot be read")
            return 0
        return state.faults

    def _utc(self) -> str:
        return self._clock.utc().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_exception(error: BaseException) -> tuple[str, str]:
    """Return an exception as one line with its place, and its whole traceback."""
    places = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(places[-1].filename).name}:{places[-1].lineno} in {places[-1].name}" if places else ""
    return f"{type(error).__name__}: {error}"[: DETAIL_CHARS - len(where)] + where, "".join(
        traceback.format_exception(error)
    )


def one_line(text: str) -> str:
    """Return the text on one line, printable, cut to what a record holds."""
    return " ".join(text.split())[:DETAIL_CHARS]


def located(detail: str, frames: Sequence[Frame]) -> str:
    """Return the detail with the innermost frame: file, address and build-id, as `scripts/symbols resolve` takes them.

    So a record says where it was without the server; the text gives way, not the place.
    """
    if not frames:
        return one_line(detail)
    inner = frames[0]
    where = f", at {inner.address:#x} in {inner.module.rpartition('/')[2][:_SHORT_NAME_CHARS]} {inner.build_id[:40]}".rstrip()
    return one_line(detail)[: DETAIL_CHARS - len(where)] + where


def fault_report(fault: Fault, running: str, utc: str, frames: Sequence[Frame], text: str) -> dict[str, Any]:
    """Return the report about a fault, small enough for the outbox. The end of the text is what matters most."""
    body: dict[str, Any] = {
        "cause": fault.cause, "slot": fault.slot, "version": fault.version, "uptime_s": fault.uptime_s, "utc": fault.utc,
        "frames": [_frame(frame) for frame in frames[:MAX_FRAMES]], "text": printable_tail(text, TEXT_BYTES),
    }  # fmt: skip
    report = {
        "id": str(uuid4()), "time": utc, "event": "fault", "version": running, "reason": fault.cause,
        "detail": fault.detail, "fault": body,
    }  # fmt: skip
    while len(json.dumps(report)) > REPORT_BYTES:
        if body["frames"] and len(json.dumps(body["text"])) <= TEXT_BYTES // 4:
            body["frames"].pop()
        else:
            body["text"] = body["text"][len(body["text"]) // 8 + 1 :]
    return report


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "module": one_line(frame.module)[:_MODULE_CHARS],
        "build_id": frame.build_id[:64],
        "address": max(frame.address, 0),
    }


def printable_tail(text: str, limit_bytes: int) -> str:
    """Return the end of a text: printable characters, tabs and line ends, at most `limit_bytes` of UTF-8."""
    return (
        printable(text[-limit_bytes:], keep="\n\t").encode("utf-8", "replace")[-limit_bytes:].decode("utf-8", "ignore")
    )
