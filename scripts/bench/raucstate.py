"""Runs on the board: leaves what RAUC would have left after it had installed what is in the slots by adaptive updates.

`raucstate.py FOLDER (SLOT DEVICE SIZE_BYTES)…`: a status file that names each slot's image, and the index of its blocks. So
RAUC needs not read its slots to make the index during the measured installation. Standard library alone.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

BLOCK_BYTES = 4096


def main() -> None:
    """Read the words of the command line and do it."""
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = []
    for slot, device, size in zip(words[0::3], words[1::3], words[2::3], strict=True):
        whole, index = hashlib.sha256(), bytearray()
        left = int(size)
        with Path(device).open("rb") as stream:
            while left:
                block = stream.read(min(BLOCK_BYTES, left))
                whole.update(block)
                index += hashlib.sha256(block).digest()
                left -= len(block)
        place = folder / f"slot.{slot}" / f"hash-{whole.hexdigest()}"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / "block-hash-index").write_bytes(index)
        status.append(f"[slot.{slot}]\nstatus=ok\nsha256={whole.hexdigest()}\nsize={size}\n")
    (folder / "central.raucs").write_text("\n".join(status))


if __name__ == "__main__":
    main()
