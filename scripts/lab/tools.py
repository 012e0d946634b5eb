"""Calls the project's own command lines as a person would, with their answers as JSON."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from scripts.lab.places import PYTHON, TOP


class LabError(RuntimeError):
    """Something the lab needs could not be done; the message says what and what to do."""


def call(module: str, *words: str | Path, timeout_s: float = 600) -> dict[str, Any]:
    """Run `python -m module words… --json` in the checkout and return the JSON object of its last line.

    Raises LabError with the program's own message if it fails.
    """
    command = [str(PYTHON), "-m", module, *map(str, words), "--json"]
    try:
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{module} {words[0]} did not finish in {timeout_s:.0f} s") from error
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"{module} {words[0]} failed: {said}")
    try:
        answer = json.loads(done.stdout if done.stdout.lstrip().startswith("{") else lines[-1])
    except (IndexError, ValueError) as error:
        raise LabError(f"{module} {words[0]} did not answer with JSON: {done.stdout[-500:]!r}") from error
    if not isinstance(answer, dict):
        raise LabError(f"{module} {words[0]} answered with JSON that is no object")
    return answer
