"""Hooks: programs on the verified root that say yes or no (`/etc/zentri/hooks/<kind>`).

`health`: does the device do its work? `pre-install`: may it be updated now, or is its battery low, its door open?
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

HOOK_TIMEOUT_S: Final = 10.0
MAX_HOOKS: Final = 16
MAX_OUTPUT_BYTES: Final = 4096
MAX_SENTENCE_CHARS: Final = 200


async def run_hooks(folder: Path, kind: str, timeout_s: float = HOOK_TIMEOUT_S) -> tuple[str, ...]:
    """Run the executable files of `folder` in order of their names; return a sentence for each that fails.

    A hook says yes with exit status 0. Otherwise the first line that it printed is the reason. One that does not end in time
    is killed and has failed.
    """
    answers = [await _run(hook, kind, timeout_s) for hook in _hooks_in(folder)]
    return tuple(answer for answer in answers if answer)


def _hooks_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and os.access(path, os.X_OK))[:MAX_HOOKS]


async def _run(hook: Path, kind: str, timeout_s: float) -> str | None:
    try:
        process = await asyncio.create_subprocess_exec(
            hook, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        return f"{kind} hook {hook.name} cannot be started ({error.strerror})"
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            output = await process.stdout.read(MAX_OUTPUT_BYTES)
            while await process.stdout.read(MAX_OUTPUT_BYTES):
                pass  # so that a talkative hook does not block on a full pipe
            status = await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"{kind} hook {hook.name} did not answer within {timeout_s:g} s"
    if status == 0:
        return None
    first = output.decode(errors="replace").strip().splitlines()[:1]
    said = "".join(char for char in "".join(first) if char.isprintable())[:MAX_SENTENCE_CHARS]
    return f"{kind} hook {hook.name}: {said or f'exit status {status}'}"
