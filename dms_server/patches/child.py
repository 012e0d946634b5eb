"""Makes one patch in a process of its own: low priority, bounded memory, time and disk, ends when the server does.

`python -m dms_server.patches.child`: the job as one line of JSON on standard input, which stays open for as long as the
server lives; lines of JSON on standard output, the last one with the outcome.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dms_server.patches.encoder import encode_patch
from dms_server.patches.verify import verify_patch
from zentrid.bundle.patch import unpack_full
from zentrid.errors import ZentriError

REQUEST_MAX_BYTES = 64 * 1024
SAY_EVERY_S = 0.3
SERVER_GONE = 3
"""Exit status when the server ended before the patch was made."""

Say = Callable[[dict[str, Any]], None]


class DoneError(Exception):
    """The job ends here with an outcome that is no patch."""

    def __init__(self, **outcome: Any) -> None:  # noqa: ANN401 - JSON
        super().__init__(str(outcome))
        self.outcome = outcome


def limit_resources(limits: dict[str, int]) -> None:
    """Bound this process. There is no way back."""
    for what, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, limits["time_s"]),
        (resource.RLIMIT_FSIZE, limits["temporary_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def end_with_the_server() -> None:
    """Leave as soon as the other end of standard input is closed; runs in a thread."""
    while os.read(0, 1024):
        pass
    os._exit(SERVER_GONE)


def unpack(payload: dict[str, Any], to: Path) -> None:
    """Make the plain payload file from its full stream, every block checked."""
    with Path(payload["path"]).open("rb") as stream, to.open("wb") as plain:

        def write_at(offset_bytes: int, block: bytes) -> None:
            plain.seek(offset_bytes)
            plain.write(block)

        unpack_full(stream, bytes.fromhex(payload["root"]), payload["size_bytes"], write_at)
        plain.truncate(payload["size_bytes"])


def make(job: dict[str, Any], say: Say) -> dict[str, Any]:
    """Make and verify the patch; return the outcome. Raises DoneError, ZentriError, OSError, MemoryError."""
    folder, base, target = Path(job["folder"]), job["base"], job["target"]
    needed, limit = base["size_bytes"] + target["size_bytes"], job["limits"]["temporary_bytes"]
    if needed > limit:
        what = f"it needs {needed} bytes of temporary files, the limit is {limit}; raise patch_temporary_max_bytes"
        raise DoneError(problem=what, final=True)
    unpack(base, folder / "base")
    say({"percent": 5})
    unpack(target, folder / "target")
    said_s = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= SAY_EVERY_S:
            said_s = time.monotonic()
            say({"percent": 10 + 80 * done // max(1, total)})

    say({"percent": 10})
    made = folder / "patch"
    with (folder / "base").open("rb") as old, (folder / "target").open("rb") as new, made.open("w+b") as out:
        encode_patch(old, new, out, progress=progress)
        out.flush()
        os.fsync(out.fileno())
    size_bytes = made.stat().st_size
    if size_bytes >= job["full_bytes"]:
        return {"larger": size_bytes}
    say({"percent": 90})
    (folder / "target").unlink()
    with made.open("rb") as patch, (folder / "base").open("rb") as old, (folder / "target").open("w+b") as scratch:
        verified = verify_patch(patch, old, base["root"], target["root"], scratch)
    return {"made": verified.size_bytes, "sha256": verified.sha256}


def outcome_of(job: dict[str, Any], say: Say) -> dict[str, Any]:
    """Return the outcome, whatever happens."""
    limit = job["limits"]["memory_bytes"]
    try:
        return make(job, say)
    except DoneError as done:
        return done.outcome
    except MemoryError:
        return {"problem": _too_much_memory(limit)}
    except OSError as error:
        return {"problem": f"a file could not be written or read ({error.strerror}); look at the disk"}
    except Exception as error:
        # Libraries have words of their own for memory that they do not get.
        if used_bytes() > limit * 9 // 10:
            return {"problem": _too_much_memory(limit)}
        if isinstance(error, ZentriError):
            return {"problem": str(error)}
        traceback.print_exc()
        return {"problem": f"{type(error).__name__}: {error}"}


def _too_much_memory(limit: int) -> str:
    return f"it took more than {limit} bytes of memory; raise patch_memory_max_bytes"


def used_bytes() -> int:
    """Return the most address space that this process had; 0 when the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPeak:"))
    except (OSError, StopIteration, ValueError, MemoryError):
        return 0


def main() -> int:
    """Do the one job."""
    answers = sys.stdout.buffer
    with open(0, "rb", buffering=0, closefd=False) as questions:
        job = json.loads(questions.readline(REQUEST_MAX_BYTES))
    threading.Thread(target=end_with_the_server, daemon=True).start()
    limit_resources(job["limits"])

    def say(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line).encode() + b"\n")
        answers.flush()

    say(outcome_of(job, say))
    return 0


if __name__ == "__main__":
    sys.exit(main())
