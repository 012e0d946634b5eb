"""Filling a slot, seen from the supervisor: the worker writes, the kernel checks, and what is wrong is repaired once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from zentrid.update.files import InstallFiles
from zentrid.update.link import INSTALL_SILENCE_S, WorkerLink, WorkerRun
from zentrid.update.protocol import Answer, Progress
from zentrid.update.readback import WrongBlockError
from zentrid.update.spool import clear

log = logging.getLogger(__name__)


class Filling:
    """One installation into the open `files`; from the server, or from the bundle open at `bundle_fd`."""

    def __init__(self, link: WorkerLink, files: InstallFiles, bundle_fd: int | None) -> None:
        self._link = link
        self._files = files
        self._bundle_fd = bundle_fd
        self._last = Progress("downloading", 0, 0)

    async def run(
        self, started: Callable[[WorkerRun], None], heed_cancel: Callable[[], None]
    ) -> AsyncGenerator[Progress, None]:
        """Yield news; at the end everything is on the medium and was read back.

        `started` gets each worker, to be able to stop it; `heed_cancel` raises when the update was cancelled. Raises
        UpdateError: what was written stays for the next time.
        """
        for repair in (False, True):
            async with aclosing(self._write(started, repair=repair)) as steps:
                async for news in steps:
                    yield news
            try:
                async with aclosing(self._check(heed_cancel)) as steps:
                    async for news in steps:
                        yield news
                break
            except WrongBlockError as error:
                if repair:
                    raise
                log.warning("update: %s; it is repaired once", error)
        # What was kept for going on is of no use any more.
        await asyncio.to_thread(clear, self._link.parts.paths.spool)

    async def _write(self, started: Callable[[WorkerRun], None], *, repair: bool) -> AsyncGenerator[Progress, None]:
        files, bundle_fd = self._files, self._bundle_fd
        fds = files.fds if bundle_fd is None else (*files.fds, bundle_fd)
        request = self._link.request("install", install=replace(files.spec, repair=repair), bundle_fd=bundle_fd)
        run = await self._link.parts.launcher.start(request, fds, INSTALL_SILENCE_S)
        before = self._last.received_bytes
        try:
            started(run)
            async for message in run.messages():
                if isinstance(message, Progress):
                    self._last = replace(message, received_bytes=before + message.received_bytes)
                    yield self._last
                elif isinstance(message, Answer):
                    break
        finally:
            await run.close()

    async def _check(self, heed_cancel: Callable[[], None]) -> AsyncGenerator[Progress, None]:
        async with aclosing(self._files.read_back()) as steps:
            async for percent in steps:
                heed_cancel()
                percent = max(self._last.percent, 90 + percent // 10)
                yield replace(self._last, phase="verifying", percent=percent, note="")
