"""What an installation takes of memory does not depend on how large the payload is."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from zentrid.adapters.blockdev import write_at
from zentrid.bundle.encode import Frame, compress, write_stream
from zentrid.bundle.patch import missing_blocks
from zentrid.bundle.tree import BLOCK_BYTES, HashTree

MIB = 1024 * 1024
PEAK_BYTES = 39 * MIB
"""With a supervisor of 25 MiB together at most 64 MiB."""


def block(number: int) -> bytes:
    """Cheap, and no two are equal."""
    return number.to_bytes(8, "big") * (BLOCK_BYTES // 8)


def make_partition(path: Path, numbers: list[int]) -> HashTree:
    """Write blocks and their tree."""
    with path.open("w+b") as file:
        for number in numbers:
            file.write(block(number))
        file.seek(0)
        tree = HashTree.from_reader(file)
        file.flush()
        write_at(file.fileno(), len(numbers) * BLOCK_BYTES, tree.levels_bytes())
    return tree


def peak_bytes(folder: Path, size_bytes: int, *, from_nothing: bool = False) -> int:
    """Update a slot of this size of which two in a hundred blocks are new and everything has moved."""
    folder.mkdir()
    n_blocks = size_bytes // BLOCK_BYTES
    old = list(range(n_blocks))
    new = [n + 2**32 if n % 50 == 0 else (n + 7) % n_blocks for n in range(n_blocks)]
    base = make_partition(folder / "base", old)
    target = make_partition(folder / "image", new)
    missing = missing_blocks(target, None if from_nothing else base)
    frames = []
    for first in range(0, len(missing), 256):
        part = missing[first : first + 256]
        frames.append(Frame(len(part), compress(b"".join(block(new[n]) for n in part), 1)))
    stream = io.BytesIO()
    write_stream(stream, target, None if from_nothing else base, missing, frames)
    (folder / "stream").write_bytes(stream.getvalue())
    with (folder / "target").open("wb") as file:
        file.truncate(size_bytes + size_bytes // 64)
    words = [folder / "stream", target.root.hex(), size_bytes, folder / "target", folder / "base", base.root.hex()]
    command = [sys.executable, "-m", "tests.support.memory_probe", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (folder / "target").open("rb") as file, (folder / "image").open("rb") as image:
        while expected := image.read(MIB):
            assert file.read(len(expected)) == expected
    return int(done.stdout) * 1024


def test_a_payload_four_times_as_large_takes_no_more_memory(tmp_path: Path) -> None:
    small, large = peak_bytes(tmp_path / "64", 64 * MIB), peak_bytes(tmp_path / "256", 256 * MIB)
    # What grows is the lists of hashes: 8 bytes in 1000 each.
    assert large - small < 8 * MIB, (small, large)
    assert large < PEAK_BYTES, (small, large)
