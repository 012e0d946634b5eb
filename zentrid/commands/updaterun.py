"""Runs updates to their end, whoever asked for them and whoever watches: a lost console does not stop an update."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.update import State
from zentrid.errors import ZentriError
from zentrid.ports import Power, UpdateOptions, UpdateProgress, Updates

_log = logging.getLogger(__name__)


class UpdateRun:
    """One update under way; any number of watchers may follow it."""

    def __init__(self) -> None:
        self.latest: UpdateProgress | None = None
        self.error: ZentriError | None = None
        self.finished = False
        self._changed = asyncio.Event()

    def tell(self, news: UpdateProgress | None) -> None:
        """Pass news to the watchers; None: the run is over."""
        if news is None:
            self.finished = True
        else:
            self.latest = news
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def watch(self) -> AsyncIterator[UpdateProgress]:
        """Yield the newest progress whenever there is newer one; slow watchers miss some, never the last.

        Raises the update's ZentriError if it ended with one.
        """
        seen: UpdateProgress | None = None
        while True:
            changed = self._changed
            if self.latest is not None and self.latest is not seen:
                seen = self.latest
                yield seen
            elif self.finished:
                break
            else:
                await changed.wait()
        if self.error is not None:
            raise self.error


class UpdateRunner:
    """Starts updates, one at a time, and restarts the board into a new release when `reboots` says so."""

    def __init__(
        self, updates: Updates, power: Power, reboots: Callable[[], bool], reboot_delay_s: float = 1.0
    ) -> None:
        """Take `reboot_delay_s` as the time that watchers have to deliver the last answer before the board restarts."""
        self._updates = updates
        self._power = power
        self._reboots = reboots
        self._reboot_delay_s = reboot_delay_s
        self._task: asyncio.Task[None] | None = None
        self.run: UpdateRun | None = None
        """The running update, or the last one."""

    @property
    def busy(self) -> bool:
        """Whether an update runs, or the restart into what it installed is under way."""
        return self._task is not None and not self._task.done()

    @property
    def received_bytes(self) -> int:
        """Bytes received by the running or last update."""
        return self.run.latest.received_bytes if self.run and self.run.latest else 0

    def start(self, options: UpdateOptions) -> UpdateRun:
        """Start an update in the background; raises CommandError if one is running."""
        if self.busy:
            raise CommandError(Code.FAILED, "An update is running already; wait for it, or stop it with 'ota cancel'.")
        self.run = UpdateRun()
        self._task = asyncio.create_task(self._carry_out(self.run, options), name="update")
        return self.run

    async def stop(self) -> None:
        """Stop following a running update, for shutting down; the update's own journal decides what happens to it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _carry_out(self, run: UpdateRun, options: UpdateOptions) -> None:
        try:
            await self._follow(run, options)
        except ZentriError as error:
            run.error = error
        except Exception as error:
            _log.exception("update failed inside the device")
            run.error = ZentriError(f"The update failed inside the device ({type(error).__name__}); see the log.")
        finally:
            run.tell(None)
        last = run.latest
        # When nobody asked for it, `update/auto.py` restarts: it knows the windows.
        wanted = self._reboots() and not options.by_itself
        if wanted and run.error is None and last is not None and last.ok and last.reboot:
            await self._restart()

    async def _follow(self, run: UpdateRun, options: UpdateOptions) -> None:
        async for news in self._updates.run(options):
            run.tell(news)

    async def _restart(self) -> None:
        await asyncio.sleep(self._reboot_delay_s)
        if self._updates.state != State.REBOOTING.value:
            return  # it was taken back meanwhile
        try:
            await self._power.reboot("update installed")
        except ZentriError as error:
            _log.error("cannot restart into the new release: %s", error)
