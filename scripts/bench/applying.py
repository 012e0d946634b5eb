"""Makes and applies this project's patches on files: `python -m scripts.bench.applying encode|apply OLD … OUT`.

A program of its own, so that its memory can be measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from zentrid.bundle.patch import PatchError, PatchHeader, decode_frame, missing_blocks, vanished_blocks, window_places
from zentrid.bundle.runs import NEW, find_runs
from zentrid.bundle.tree import BLOCK_BYTES, HashTree


def apply_patch(old: Path, patch: Path, made: Path) -> None:
    """Write to `made` what `patch` makes of `old`, as whole blocks, every one checked as on a device. Raises PatchError."""
    with old.open("rb") as base, patch.open("rb") as stream, made.open("w+b") as out:
        base_tree = HashTree.from_reader(base)
        header = PatchHeader.read(stream)
        tree = header.decode_leaves(stream.read(header.leaf_bytes), base_tree)
        missing, vanished = missing_blocks(tree, base_tree), vanished_blocks(tree, base_tree)

        def block_at(in_base: bool, index: int) -> bytes:
            file = base if in_base else out
            file.seek(index * BLOCK_BYTES)
            return file.read(BLOCK_BYTES).ljust(BLOCK_BYTES, b"\0")

        for index, frame in enumerate(header.frames):
            places = window_places(header, index, missing, vanished)
            dictionary = b"".join(block_at(*place) for place in places)
            blocks = decode_frame(header, index, stream.read(frame.compressed_bytes), dictionary)
            for ordinal, block in enumerate(blocks, frame.first):
                if not tree.verify_block(missing[ordinal], block):
                    raise PatchError(f"frame {index} gives a wrong block {missing[ordinal]}")
                out.seek(missing[ordinal] * BLOCK_BYTES)
                out.write(block)
        at = 0
        for run in find_runs(tree, base_tree):
            for number in range(run.blocks if run.kind != NEW else 0):
                block = block_at(run.kind == 1, run.start + number)
                if not tree.verify_block(at + number, block):
                    raise PatchError(f"block {at + number} is not where it should be")
                out.seek((at + number) * BLOCK_BYTES)
                out.write(block)
            at += run.blocks


def main() -> None:
    """Run the command line."""
    what, old, second, out = sys.argv[1:]
    if what == "encode":
        # Only here: applying takes no memory for the encoder.
        from dms_server.patches.encoder import encode_patch

        with Path(old).open("rb") as base, Path(second).open("rb") as target, Path(out).open("wb") as stream:
            encode_patch(base, target, stream)
    else:
        apply_patch(Path(old), Path(second), Path(out))


if __name__ == "__main__":
    main()
