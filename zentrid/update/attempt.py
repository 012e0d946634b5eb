"""One attempt at an update while it lasts: its worker, how far it is, and whether somebody has cancelled it."""

from __future__ import annotations

from zentrid.core.update import Event, State
from zentrid.ports import UpdateProgress
from zentrid.update.errors import UpdateCancelledError
from zentrid.update.ledger import Ledger
from zentrid.update.link import WorkerRun
from zentrid.update.protocol import Progress


class Attempt:
    """What the parts of one attempt share. Made anew for each."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._worker: WorkerRun | None = None
        self.cancelled = False
        self.committed = False
        """Past cancelling, even if the journal does not say so yet."""
        self.percent = 0
        self.received_bytes = 0
        """What it has received from the network."""

    def started(self, run: WorkerRun) -> None:
        """Follow this worker from now on."""
        self._worker = run
        if self.cancelled:
            run.stop()

    def cancel(self) -> None:
        """Stop what is under way; `heed_cancel` raises from now on."""
        self.cancelled = True
        if self._worker is not None:
            self._worker.stop()

    def heed_cancel(self) -> None:
        """Raise UpdateCancelledError if somebody has cancelled the attempt."""
        if self.cancelled:
            raise UpdateCancelledError

    async def follow(self, message: Progress) -> None:
        """Take a worker's news; its first word about verifying is a step of the journal."""
        self.percent, self.received_bytes = message.percent, message.received_bytes
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
