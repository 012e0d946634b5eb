"""Hooks: programs on the verified root that say yes or no (`/etc/zentri/hooks/<kind>`); `docs/hooks.md` is for their authors.

`health`: does the device do its work? `pre-install`: may it be updated now, or is its battery low, its door open?
`post-install`: everything is written and verified; may it be activated?

They run as root, so only what the image itself brought is run: a program on another file system, or one that others may
write, is refused and counts as a no.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zentrid.bundle.manifest import Manifest
from zentrid.core.text import printable

MAX_HOOKS: Final = 16
MAX_OUTPUT_BYTES: Final = 4096
MAX_SENTENCE_CHARS: Final = 200
_DRAIN_S: Final = 1.0
"""How long output is waited for after a hook has ended: what it left running may hold its pipe."""
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Limits:
    """How long hooks may take (seconds)."""

    each_s: float
    all_s: float
    """All of one kind together; those that did not get their turn count as a no."""


HEALTH: Final = Limits(10.0, 60.0)
INSTALL: Final = Limits(60.0, 180.0)


def install_facts(manifest: Manifest, running: str) -> dict[str, str]:
    """Return what the install hooks are told, as environment variables."""
    return {
        "ZENTRI_PRODUCT": manifest.product,
        "ZENTRI_VERSION": str(manifest.version),
        "ZENTRI_FROM": running,
        "ZENTRI_ITEMS": " ".join(f"{item.type}:{item.name}" for item in manifest.items),
    }


async def run_hooks(
    folder: Path, kind: str, limits: Limits = HEALTH, facts: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Run the executable files of `folder` in order of their names; return a sentence for each that fails.

    A hook says yes with exit status 0. Otherwise the first line that it printed is the reason. One that does not end in time
    is killed, with everything it started, and has failed. Cancelling this kills the one that runs.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limits.all_s
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "ZENTRI_HOOK": kind, **(facts or {})}
    answers: list[str | None] = []
    for hook in _hooks_in(folder):
        left_s = end_s - loop.time()
        if left_s <= 0:
            answers.append(f"{kind} hooks took longer than {limits.all_s:g} s together; {hook.name} was not asked")
            break
        answers.append(
            _objection_to(hook, folder, kind) or await _run(hook, kind, min(limits.each_s, left_s), environment)
        )
    return tuple(answer for answer in answers if answer)


def _hooks_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and os.access(path, os.X_OK))[:MAX_HOOKS]


def _objection_to(hook: Path, folder: Path, kind: str) -> str:
    """Return why a program must not be run with these rights; empty: it may."""
    try:
        found, home = hook.stat(), folder.stat()
    except OSError as error:
        return f"{kind} hook {hook.name} cannot be read ({error.strerror})"
    if found.st_dev != home.st_dev:
        return f"{kind} hook {hook.name} is not part of the image; put the program itself into {folder}"
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        return f"{kind} hook {hook.name} can be changed by others; give it to root, mode 755"
    return ""


async def _run(hook: Path, kind: str, timeout_s: float, environment: Mapping[str, str]) -> str | None:
    read_fd, write_fd = os.pipe()
    said = _Said()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: said, os.fdopen(read_fd, "rb", 0))
    try:
        status = await _ended(hook, write_fd, timeout_s, environment)
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await said.ended.wait()
    except OSError as error:
        return f"{kind} hook {hook.name} cannot be started ({error.strerror})"
    finally:
        pipe.close()
    if status is None:
        return f"{kind} hook {hook.name} did not answer within {timeout_s:g} s"
    return None if status == 0 else f"{kind} hook {hook.name}: {said.first_line or f'exit status {status}'}"


async def _ended(hook: Path, output_fd: int, timeout_s: float, environment: Mapping[str, str]) -> int | None:
    """Run a hook, kill what is left of it, and return its exit status; None: it took too long. Raises OSError."""
    try:
        process = await asyncio.create_subprocess_exec(
            hook, stdin=asyncio.subprocess.DEVNULL, stdout=output_fd, stderr=output_fd, env=environment, cwd="/",
            start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(output_fd)
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        _kill_all(process)
        await process.wait()


class _Said(asyncio.Protocol):
    """The beginning of a hook's output; what comes after it is read and dropped, so that a full pipe holds up none."""

    def __init__(self) -> None:
        self._output = bytearray()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Keep what there is room for."""
        self._output += data[: MAX_OUTPUT_BYTES - len(self._output)]

    def connection_lost(self, _error: Exception | None) -> None:
        """Nobody holds the pipe any more."""
        self.ended.set()

    @property
    def first_line(self) -> str:
        """The first line of the output, printable."""
        lines = self._output.decode(errors="replace").strip().splitlines()
        return printable(lines[0])[:MAX_SENTENCE_CHARS] if lines else ""


def _kill_all(process: asyncio.subprocess.Process) -> None:
    """Kill the hook and what it started: nothing of it outlives its answer."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
