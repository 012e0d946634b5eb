"""Reads one symbol file in a process of its own, since it is foreign input: little memory, little time, nothing to write.

`python -m dms_server.faults.child FILE`: frames as JSON on standard input, JSON on standard output.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from zentrid.debug.symbols import BadSymbolFileError, SymbolFile, describe
from zentrid.ports import Frame

MEMORY_MAX_BYTES = 768 * 1024 * 1024
CPU_MAX_S = 20
OUTPUT_MAX_BYTES = 4 * 1024 * 1024
INPUT_MAX_BYTES = 4 * 1024 * 1024
LINE_MAX_CHARS = 500


def limit_resources() -> None:
    """Take from this process what reading a file does not need. There is no way back."""
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
        (resource.RLIMIT_CPU, CPU_MAX_S),
        (resource.RLIMIT_FSIZE, OUTPUT_MAX_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def read(path: Path, frames: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the file's build-id and a line for each frame, None where the file knows nothing. Raises BadSymbolFileError."""
    with path.open("rb") as stream:
        symbols = SymbolFile(stream)
        lines: list[str | None] = []
        for values in frames:
            frame = Frame(**values)
            place = symbols.resolve(frame.address)
            lines.append(None if place is None else describe(frame, place, None)[:LINE_MAX_CHARS])
        return {"build_id": symbols.build_id, "lines": lines}


def main() -> int:
    """Answer the request; a file that cannot be read is an answer too."""
    limit_resources()
    frames = json.loads(sys.stdin.buffer.read(INPUT_MAX_BYTES))
    try:
        answer = read(Path(sys.argv[1]), frames)
    except BadSymbolFileError as error:
        answer = {"problem": str(error)[:LINE_MAX_CHARS]}
    except MemoryError:
        answer = {"problem": "reading it takes too much memory"}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
