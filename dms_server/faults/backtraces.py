"""Backtraces for people: frames and symbol files become lines, once for each fault and set of files."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import update

from dms_server.db import Database
from dms_server.faults.models import Fault
from dms_server.faults.reader import NotNowError, Reader, UnreadableError
from dms_server.faults.symbols import Symbols

log = structlog.get_logger()

BUDGET_S = 20.0
"""How long one request may go on starting to read symbol files; what is left over is for the next request."""
FRAMES_AT_ONCE = 4096
NOT_YET = "its symbol file is being read; load this again"

Place = tuple[str, str, int]
"""SHA-256 of the symbol file, module, address."""


class Backtraces:
    """Makes frames readable with the symbol files of one account."""

    def __init__(self, db: Database, symbols: Symbols, reader: Reader) -> None:
        self._db = db
        self._symbols = symbols
        self._reader = reader
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._running: dict[int, asyncio.Task[list[list[str]]]] = {}
        """Reading for requests that have no patience, by account."""

    async def of(self, owner_id: int, faults: Sequence[Fault], patience_s: float | None = None) -> list[list[str]]:
        """Return the backtrace of each fault, innermost frame first; kept in the database once they are complete.

        After `patience_s` the caller gets what is known by then; the reading goes on and is there the next time.
        """
        if patience_s is None:
            return await self._in_turn(owner_id, faults)
        running = self._running.get(owner_id)
        if running is None:
            running = self._running[owner_id] = asyncio.create_task(self._in_turn(owner_id, faults))
            running.add_done_callback(lambda task: self._ended(owner_id, task))
            if (await asyncio.wait([running], timeout=patience_s))[0]:
                return running.result()
        return await self._of(owner_id, faults, read=False)

    async def close(self) -> None:
        """Give up what is being read."""
        for task in list(self._running.values()):
            task.cancel()
            await asyncio.wait([task])

    def _ended(self, owner_id: int, task: asyncio.Task[list[list[str]]]) -> None:
        self._running.pop(owner_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background_work_failed", work="backtraces", exc_info=error)

    async def _in_turn(self, owner_id: int, faults: Sequence[Fault]) -> list[list[str]]:
        # One account at a time, so that nobody's hostile files take all the turns, and nothing is read twice.
        async with self._turns.setdefault(owner_id, asyncio.Lock()):
            return await self._of(owner_id, faults)

    async def _of(self, owner_id: int, faults: Sequence[Fault], *, read: bool = True) -> list[list[str]]:
        wanted = {frame["build_id"] for fault in faults for frame in fault.frames if frame["build_id"]}
        known = await self._symbols.known(owner_id, wanted)
        keys = [_key(fault, known) for fault in faults]
        todo = [fault for fault, key in zip(faults, keys, strict=True) if key and fault.backtrace_key != key]
        found = await self._read(todo, known) if read else {}
        fresh: list[tuple[int, list[str], str]] = []
        result: list[list[str]] = []
        for fault, key in zip(faults, keys, strict=True):
            if key and fault.backtrace_key == key and fault.backtrace is not None:
                result.append(fault.backtrace)
                continue
            lines = [f"#{number} {_line(frame, known, found)}" for number, frame in enumerate(fault.frames)]
            result.append(lines)
            if key and all(_place(frame, known) in found for frame in fault.frames if frame["build_id"] in known):
                fresh.append((fault.id, lines, key))
        await self._keep(fresh)
        return result

    async def _read(self, faults: Sequence[Fault], known: Mapping[str, str]) -> dict[Place, str]:
        """Return what the symbol files say of the frames; a file that cannot be read says why."""
        by_file: dict[str, dict[Place, dict[str, Any]]] = {}
        for fault in faults:
            for frame in fault.frames:
                if frame["build_id"] in known:
                    place = _place(frame, known)
                    by_file.setdefault(place[0], {})[place] = frame
        end_s = asyncio.get_running_loop().time() + BUDGET_S
        found: dict[Place, str] = {}
        for sha256, frames in by_file.items():
            if asyncio.get_running_loop().time() >= end_s:
                break
            places = list(frames)[:FRAMES_AT_ONCE]
            try:
                reading = await self._reader.read(self._symbols.path(sha256), [frames[place] for place in places])
            except NotNowError as error:  # not kept: the next look tries again
                log.warning("symbol_file_not_read_now", problem=str(error))
                continue
            except UnreadableError as error:
                log.warning("symbol_file_unreadable", sha256=sha256, problem=str(error))
                found |= {place: _bare(frames[place], f"its symbol file cannot be used: {error}") for place in places}
                continue
            for place, line in zip(places, reading.lines, strict=True):
                found[place] = line or _bare(frames[place], "its symbol file names nothing there")
        return found

    async def _keep(self, fresh: Sequence[tuple[int, list[str], str]]) -> None:
        if not fresh:
            return
        async with self._db.write() as session:
            for fault_id, lines, key in fresh:
                statement = update(Fault).where(Fault.id == fault_id)
                await session.change(statement.values(backtrace=lines, backtrace_key=key))


def _key(fault: Fault, known: Mapping[str, str]) -> str:
    """Return what names the symbol files that this fault's lines are made with; empty where there is none."""
    used = sorted(
        {(frame["build_id"], known[frame["build_id"]]) for frame in fault.frames if frame["build_id"] in known}
    )
    return hashlib.sha256(json.dumps(used).encode()).hexdigest() if used else ""


def _place(frame: Mapping[str, Any], known: Mapping[str, str]) -> Place:
    return known[frame["build_id"]], frame["module"], frame["address"]


def _line(frame: Mapping[str, Any], known: Mapping[str, str], found: Mapping[Place, str]) -> str:
    build_id = frame["build_id"]
    if not build_id:
        return _bare(frame, "it has no build-id")
    if build_id not in known:
        return _bare(frame, f"the symbol file {build_id} is missing")
    return found.get(_place(frame, known)) or _bare(frame, NOT_YET)


def _bare(frame: Mapping[str, Any], why: str) -> str:
    """Return a frame without symbols: module, address, and why there is no more."""
    return f"{frame['address']:#x} in {PurePosixPath(frame['module']).name or '?'} ({why})"
