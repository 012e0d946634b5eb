"""Getting payloads onto the medium, for the supervisor: the worker writes, the kernel checks, what is wrong is repaired once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from zentrid.ports import UpdateProgress
from zentrid.update.attempt import Attempt
from zentrid.update.link import WorkerLink
from zentrid.update.origin import Origin
from zentrid.update.protocol import Answer, InstallSpec, Progress
from zentrid.update.readback import WrongBlockError
from zentrid.update.spool import clear

log = logging.getLogger(__name__)


class Filling:
    """One installation by `spec`, whose open files are `fds`, from `origin`.

    `read_back` reads back, and yields percent of, what the worker leaves to the kernel; None: nothing.
    """

    def __init__(
        self,
        link: WorkerLink,
        spec: InstallSpec,
        fds: tuple[int, ...],
        origin: Origin,
        read_back: Callable[[], AsyncGenerator[int, None]] | None = None,
        begun: tuple[dict[str, Any], ...] = (),
    ) -> None:
        """Take `begun` as reports that the worker sends first, on the way that it opens anyway."""
        self._link = link
        self._spec = spec
        self._fds = (*fds, *origin.fds)
        self._origin = origin
        self._read_back = read_back
        self._begun = begun
        self._last = Progress("downloading", 0, 0)

    async def run(self, attempt: Attempt, label: str) -> AsyncGenerator[UpdateProgress, None]:
        """Yield news about `label`; at the end everything is on the medium and was read back.

        Raises UpdateError: what was written stays for the next time.
        """
        async with aclosing(self._fill(attempt)) as steps:
            async for progress in steps:
                await attempt.follow(progress)
                yield attempt.news(progress.note or label)

    async def _fill(self, attempt: Attempt) -> AsyncGenerator[Progress, None]:
        for repair in (False, True):
            async with aclosing(self._write(attempt, repair=repair)) as steps:
                async for news in steps:
                    yield news
            try:
                async with aclosing(self._check(attempt)) as steps:
                    async for news in steps:
                        yield news
                break
            except WrongBlockError as error:
                if repair:
                    raise
                log.warning("update: %s; it is repaired once", error)
        # What was kept for going on is of no use any more.
        await asyncio.to_thread(clear, self._link.parts.paths.spool)

    async def _write(self, attempt: Attempt, *, repair: bool) -> AsyncGenerator[Progress, None]:
        origin, spec = self._origin, replace(self._spec, repair=repair)
        request = self._link.request("install", install=spec, bundle_fd=origin.fd, bundle_url=origin.url)
        if not repair:
            request = replace(request, reports=self._begun)
        run = await self._link.parts.launcher.start(request, self._fds, self._link.install_silence_s)
        before = self._last.received_bytes
        try:
            attempt.started(run)
            async for message in run.messages():
                if isinstance(message, Progress):
                    self._last = replace(message, received_bytes=before + message.received_bytes)
                    yield self._last
                elif isinstance(message, Answer):
                    break
        finally:
            await run.close()

    async def _check(self, attempt: Attempt) -> AsyncGenerator[Progress, None]:
        if self._read_back is None:
            return
        async with aclosing(self._read_back()) as steps:
            async for percent in steps:
                attempt.heed_cancel()
                percent = max(self._last.percent, 90 + percent // 10)
                yield replace(self._last, phase="verifying", percent=percent, note="")
