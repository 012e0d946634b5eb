"""Runs the build's outside programs: quiet when they succeed, their last words when they fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCE_DATE_EPOCH = "1767225600"
"""2026-01-01T00:00:00Z: the one time stamp in everything that is built, so that same inputs give same bytes."""


class BuildError(RuntimeError):
    """A build step failed; the message says which program, how, and where its whole output is."""


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 3600,
) -> None:
    """Run a program with its output appended to `log`. Raises BuildError with the last lines when it fails."""
    words = [str(word) for word in command]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "LC_ALL": "C", "TZ": "UTC"}
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    environment.update(env or {})
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"$ {' '.join(words)}\n".encode())
        output.flush()
        try:
            done = subprocess.run(
                words, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                cwd=cwd, env=environment, timeout=timeout_s, check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise BuildError(f"{words[0]} is not installed; run `make host-packages`") from error
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{words[0]} did not finish in {timeout_s:.0f} s; its output is in {log}") from error
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise BuildError(f"{words[0]} failed with exit code {done.returncode}; its output is in {log}:\n{tail}")
