"""One attempt at an update while it lasts: its worker, how far it is, and whether somebody has cancelled it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from zentrid.core.events import DeviceEvent, Steps, UpdateAdvanced
from zentrid.core.update import Event, State
from zentrid.ports import UpdateProgress
from zentrid.update.errors import UpdateCancelledError
from zentrid.update.ledger import Ledger
from zentrid.update.link import WorkerRun
from zentrid.update.protocol import Progress

_T = TypeVar("_T")


class Attempt:
    """What the parts of one attempt share. Made anew for each."""

    def __init__(self, ledger: Ledger, tell: Callable[[DeviceEvent], None] = lambda _event: None) -> None:
        """Begin one. `tell` hears of good steps of progress."""
        self._ledger = ledger
        self._tell = tell
        self._steps_told = Steps()
        self._worker: WorkerRun | None = None
        self._cancel = asyncio.Event()
        self.committed = False
        """Past cancelling, even if the journal does not say so yet."""
        self.percent = 0
        self.received_bytes = 0
        """What it has received from the network."""
        self.goal = ""
        """The release that the one being installed is a step towards; empty: it is where the device is to go."""

        self.only_looks = False
        """Nothing was to be installed, so how it ends is nobody's business but the caller's."""
        self.unlimited = False
        """A person said that `ota.budget` does not count."""

    @property
    def cancelled(self) -> bool:
        """Whether somebody has cancelled it."""
        return self._cancel.is_set()

    def started(self, run: WorkerRun) -> None:
        """Follow this worker from now on."""
        self._worker = run
        if self.cancelled:
            run.stop()

    def cancel(self) -> None:
        """Stop what is under way; `heed_cancel` raises from now on."""
        self._cancel.set()
        if self._worker is not None:
            self._worker.stop()

    def heed_cancel(self) -> None:
        """Raise UpdateCancelledError if somebody has cancelled the attempt."""
        if self.cancelled:
            raise UpdateCancelledError

    async def race(self, work: Awaitable[_T]) -> _T:
        """Return what `work` returns. Raises UpdateCancelledError as soon as somebody cancels; the work is cancelled then."""
        task, cancelled = asyncio.ensure_future(work), asyncio.ensure_future(self._cancel.wait())
        try:
            await asyncio.wait((task, cancelled), return_when=asyncio.FIRST_COMPLETED)
            self.heed_cancel()
            return task.result()
        finally:
            for one in (task, cancelled):
                one.cancel()
            await asyncio.gather(task, cancelled, return_exceptions=True)

    async def follow(self, message: Progress) -> None:
        """Take a worker's news; its first word about verifying is a step of the journal."""
        self.percent, self.received_bytes = message.percent, message.received_bytes
        if self._steps_told.is_new(message.phase, message.percent):
            version = self._ledger.entry.to_version
            self._tell(UpdateAdvanced(message.phase, version, message.percent, message.received_bytes))
        if message.phase == "verifying" and self._ledger.entry.state is State.DOWNLOADING:
            await self._ledger.enter(Event.WRITTEN)

    def news(
        self, message: str, *, done: bool = False, ok: bool = True, reboot: bool = False, result: int | None = None
    ) -> UpdateProgress:
        """Return where it stands, with a sentence for people."""
        entry = self._ledger.entry
        return UpdateProgress(
            state=entry.state.value,
            percent=self.percent,
            message=message,
            received_bytes=self.received_bytes,
            done=done,
            ok=ok,
            reboot=reboot,
            result=entry.result if result is None else result,
        )
