"""The server's side of reading symbol files: starts the child, bounds it from outside too, believes nothing that it says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from dms_server.faults.child import LINE_MAX_CHARS, OUTPUT_MAX_BYTES
from zentrid.core.text import printable

log = structlog.get_logger()

TOP = Path(__file__).resolve().parents[2]
WALL_MAX_S = 40.0
AT_ONCE = 2
COMPLAINT_MAX_CHARS = 2000


@dataclass(frozen=True)
class Reading:
    """What a symbol file says."""

    build_id: str
    lines: tuple[str | None, ...]
    """For each frame that was asked for; None: the file knows no function there."""


class UnreadableError(Exception):
    """The file could not be read within the limits; the sentence says why."""


class NotNowError(UnreadableError):
    """The server could not read the file this time: out of time, memory or disk. Another time it may."""


class Reader:
    """Reads symbol files, few at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def read(self, path: Path, frames: Sequence[dict[str, Any]] = ()) -> Reading:
        """Return build-id and lines of the file at `path`. Raises UnreadableError."""
        async with self._turns:
            try:
                raw = await asyncio.to_thread(_run, path, json.dumps(list(frames)).encode())
            except OSError as error:
                log.warning("symbol_file_reader_not_started", error=str(error))
                raise NotNowError("the server cannot read it now; look again later") from error
        return _parse(raw, len(frames))


def _run(path: Path, request: bytes) -> bytes:
    """Run the child to its end; blocks. Its output goes into a file, whose size the child's limits bound."""
    command = [sys.executable, "-E", "-s", "-m", "dms_server.faults.child", str(path)]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                command,
                cwd=TOP,
                env={"LANG": "C.UTF-8", "PATH": os.defpath},
                input=request,
                stdout=output,
                stderr=complaints,
                timeout=WALL_MAX_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotNowError("reading it takes too long") from error
        if done.returncode != 0:
            complaints.seek(0)
            text = complaints.read(OUTPUT_MAX_BYTES).decode("utf-8", "replace")[-COMPLAINT_MAX_CHARS:]
            log.warning("symbol_file_reader_failed", file=path.name, status=done.returncode, complaint=text)
            if done.returncode < 0:
                raise NotNowError("reading it takes too long")
            raise UnreadableError("reading it failed")
        output.seek(0)
        return output.read(OUTPUT_MAX_BYTES)


def _parse(raw: bytes, count: int) -> Reading:
    try:
        answer = json.loads(raw)
        if "problem" in answer:
            raise UnreadableError(printable(str(answer["problem"]))[:LINE_MAX_CHARS])
        build_id, lines = answer["build_id"], answer["lines"]
        if not isinstance(build_id, str) or len(build_id) > 512 or len(lines) != count:
            raise ValueError("not what was asked for")
        found = tuple(None if line is None else printable(str(line))[:LINE_MAX_CHARS] for line in lines)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableError("reading it gave nonsense") from error
    return Reading(build_id, found)
