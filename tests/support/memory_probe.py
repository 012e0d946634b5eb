"""Installs one payload in a process of its own and prints its peak memory (KiB): `python -m tests.support.memory_probe …`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from zentrid.update import worker  # everything that the worker loads counts
from zentrid.update.install import ItemJob, install
from zentrid.update.payloads import PatchSource
from zentrid.update.sources import Source
from zentrid.update.transport import Known


class StreamFile:
    """A patch stream in a file."""

    def __init__(self, path: Path) -> None:
        self.known = Known()
        self._path = path

    def read(self, start: int, end: int) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            file.seek(start)
            for at in range(start, end, 65536):
                yield file.read(min(65536, end - at))


class StreamFiles:
    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, root_hash: str, base_hash: str | None) -> PatchSource:
        del root_hash, base_hash
        return StreamFile(self._path)


def main(stream: str, root_hash: str, size_bytes: str, target: str, base: str, base_root: str) -> None:
    """Install `stream` over the partition file `target`; `base` is the running slot's partition, its tree behind its data."""
    assert worker.MAX_ADDRESS_SPACE_BYTES
    target_fd, base_fd = os.open(target, os.O_RDWR), os.open(base, os.O_RDONLY)
    blocks = int(size_bytes) // 4096
    source = Source(base_fd, blocks, blocks, base_root)
    job = ItemJob("rootfs", root_hash, int(size_bytes), target_fd, (source,), with_tree=True)
    install((job,), StreamFiles(Path(stream)), lambda _phase, _percent: None)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    print(found[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
