"""Makes the queued patches, one after the other in processes of their own, and keeps the cache within its limit."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog
from sqlalchemy import delete

from dms_server.bundles.store import PayloadStore
from dms_server.clock import now
from dms_server.db import Database
from dms_server.patches import queue
from dms_server.patches.models import Patch
from dms_server.patches.process import Limits, Outcome, PatchProcess
from dms_server.patches.queue import Job
from dms_server.patches.store import PatchStore
from dms_server.settings import Settings

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
"""How often the queue is looked at when nobody says that something came: for those that wait for another try."""
TROUBLE_PAUSE_S = 5.0


class Workshop:
    """The background work. `percent` tells how far the patches are that are being made, by the row's key."""

    def __init__(self, db: Database, settings: Settings, payloads: PayloadStore, store: PatchStore) -> None:
        self._db = db
        self._settings = settings
        self._payloads = payloads
        self._store = store
        self.percent: dict[int, int] = {}
        self._processes: dict[int, PatchProcess] = {}
        self._come = asyncio.Event()
        self._keeping = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Begin to work."""
        count = self._settings.patch_workers
        if count:
            self._threads = ThreadPoolExecutor(count, thread_name_prefix="patch")
            self._tasks = [asyncio.create_task(self._work()) for _ in range(count)]

    async def stop(self) -> None:
        """End the work; what is being made is queued again."""
        self._stopping = True
        self.wake()
        for process in list(self._processes.values()):
            process.kill()
        for task in self._tasks:
            with suppress(Exception):
                await task
        if self._tasks:
            await asyncio.to_thread(self._threads.shutdown)

    def wake(self) -> None:
        """Say that something was queued."""
        self._come.set()

    async def _work(self) -> None:
        while not self._stopping:
            try:
                busy = await self._one()
            except Exception:
                log.exception("background_work_failed", work="patches")
                await self._wait(TROUBLE_PAUSE_S)
                continue
            if not busy:
                await self._wait(LOOK_EVERY_S)

    async def _wait(self, most_s: float) -> None:
        if self._stopping:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._come.wait(), most_s)
        self._come.clear()

    async def _one(self) -> bool:
        """Make one patch; return False when there is nothing to do."""
        active = list(self.percent)
        async with self._db.read() as session:
            if not await queue.anything_to_do(session, active, now()):
                return False
        async with self._db.write() as session:
            job = await queue.take(session, list(self.percent), self._settings.patch_tries_max, now())
            if job is not None:
                self.percent[job.id] = 0
        if job is None:
            return False
        try:
            await self._make(job)
        finally:
            del self.percent[job.id]
        return True

    async def _make(self, job: Job) -> None:
        started_s = time.monotonic()
        try:
            folder = await asyncio.to_thread(self._store.new_folder)
        except OSError as error:
            await self._failed(
                job, Outcome(problem=f"no temporary folder can be made ({error.strerror}); look at the disk")
            )
            return
        try:
            outcome = await self._run(job, folder)
            if self._stopping and not outcome.made:
                async with self._db.write() as session:
                    await queue.put_back(session, job)
                return
            took_ms = round((time.monotonic() - started_s) * 1000)
            await self._keep(job, outcome, folder, took_ms)
        finally:
            await asyncio.to_thread(self._store.drop_folder, folder)

    async def _run(self, job: Job, folder: Path) -> Outcome:
        def payload(root: str, size_bytes: int) -> dict[str, object]:
            return {"path": str(self._payloads.path(root).resolve()), "root": root, "size_bytes": size_bytes}

        request = {
            "folder": str(folder),
            "base": await asyncio.to_thread(payload, job.base_root, job.base_bytes),
            "target": await asyncio.to_thread(payload, job.target_root, job.target_bytes),
            "full_bytes": job.full_bytes,
        }
        limits = Limits(
            memory_bytes=self._settings.patch_memory_max_bytes,
            time_s=self._settings.patch_time_max_s,
            temporary_bytes=self._settings.patch_temporary_max_bytes,
        )

        def tell(percent: int) -> None:
            self.percent[job.id] = percent

        process = self._processes[job.id] = PatchProcess(request, limits, tell)
        if self._stopping:
            process.kill()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, process.run)
        finally:
            del self._processes[job.id]

    async def _keep(self, job: Job, outcome: Outcome, folder: Path, took_ms: int) -> None:
        if outcome.size_bytes is None:
            await self._failed(job, outcome)
            return
        names = {"base": job.base_root[:16], "target": job.target_root[:16]}
        if outcome.made:
            # One at a time, so that two together do not go over the limit.
            async with self._keeping:
                if not await self._make_room(outcome.size_bytes):
                    problem = (
                        "it does not fit into the cache beside those to tagged releases; raise patch_cache_max_bytes"
                    )
                    await self._failed(job, Outcome(problem=problem, final=True))
                    return
                try:
                    await asyncio.to_thread(self._store.keep, folder / "patch", job.target_root, job.base_root)
                except OSError as error:
                    problem = f"it could not be moved to its place ({error.strerror}); look at the disk"
                    await self._failed(job, Outcome(problem=problem))
                    return
                await self._made(job, outcome.size_bytes, outcome.sha256, took_ms)
        else:
            await self._made(job, outcome.size_bytes, None, took_ms)
        event = "patch_made" if outcome.made else "patch_larger"
        log.info(event, **names, size=outcome.size_bytes, full=job.full_bytes, ms=took_ms)

    async def _made(self, job: Job, size_bytes: int, sha256: str | None, took_ms: int) -> None:
        async with self._db.write() as session:
            await queue.made(session, job, size_bytes, sha256, took_ms, now())

    async def _failed(self, job: Job, outcome: Outcome) -> None:
        tries_max, pause_s = self._settings.patch_tries_max, self._settings.patch_retry_s
        again = None if outcome.final else queue.retry_at(job.tries, tries_max, pause_s, now())
        log.error(
            "patch_failed",
            base=job.base_root[:16],
            target=job.target_root[:16],
            problem=outcome.problem,
            tries=job.tries,
            again=again is not None,
        )
        async with self._db.write() as session:
            await queue.failed(session, job, outcome.problem, again, now())

    async def _make_room(self, needed_bytes: int) -> bool:
        """Drop what was served least recently until a patch fits; return False, with nothing dropped, if it cannot."""
        async with self._db.write() as session:
            victims = await queue.choose_victims(session, needed_bytes, self._settings.patch_cache_max_bytes)
            for patch in victims or ():
                await session.change(delete(Patch).where(Patch.id == patch.id))
        for patch in victims or ():
            # The row first: a file without a row goes at the next start.
            await asyncio.to_thread(self._store.drop, patch.target_root, patch.base_root)
            log.info("patch_dropped", base=patch.base_root[:16], target=patch.target_root[:16], size=patch.size_bytes)
        return victims is not None
