"""Nothing is kept that was not verified: right patches pass, all others do not."""

from __future__ import annotations

import hashlib
import io
import os

import pytest

from dms_server.patches.verify import verify_patch
from tests.server.patching import apply, encoded, release, root_of
from zentrid.bundle.encode import Frame, compress, write_stream
from zentrid.bundle.layout import Space, Window
from zentrid.bundle.patch import PatchError, PatchHeader
from zentrid.bundle.tree import BLOCK_BYTES, HashTree


def test_verifying_takes_a_right_patch_and_no_other() -> None:
    base, target, other = release(1), release(2), release(3)
    good, roots = encoded(base, target), (root_of(base), root_of(target))
    verified = verify_patch(io.BytesIO(good), io.BytesIO(base), *roots, io.BytesIO())
    assert verified.size_bytes == len(good)
    with pytest.raises(PatchError, match="another base"):
        verify_patch(io.BytesIO(good), io.BytesIO(other), *roots, io.BytesIO())
    with pytest.raises(PatchError, match="another target"):
        verify_patch(io.BytesIO(encoded(base, other)), io.BytesIO(base), *roots, io.BytesIO())
    with pytest.raises(PatchError, match="goes on"):
        verify_patch(io.BytesIO(good + b"x"), io.BytesIO(base), *roots, io.BytesIO())
    for place in range(0, len(good), max(1, len(good) // 200)):
        for damaged in (good[:place], good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]):
            with pytest.raises(PatchError):
                verify_patch(io.BytesIO(damaged), io.BytesIO(base), *roots, io.BytesIO())


def test_verifying_knows_what_earlier_frames_gave() -> None:
    """A window into the target's own earlier blocks, and not a byte of the target from elsewhere."""
    base, first, second = os.urandom(BLOCK_BYTES), os.urandom(BLOCK_BYTES), os.urandom(BLOCK_BYTES)
    edited = bytes([first[0] ^ 1]) + first[1:]
    target = first + second + edited
    frames = [
        Frame(2, compress(first + second, 3)),
        Frame(1, compress(edited, 12, first), (Window(Space.EARLIER, 0, 1),)),
    ]
    out = io.BytesIO()
    trees = [HashTree.from_reader(io.BytesIO(content)) for content in (target, base)]
    write_stream(out, *trees, range(3), frames)
    patch, roots = out.getvalue(), (root_of(base), root_of(target))
    verified = verify_patch(io.BytesIO(patch), io.BytesIO(base), *roots, io.BytesIO())
    assert verified.sha256 == hashlib.sha256(patch).hexdigest()
    assert apply(patch, base, len(target)) == target


def test_verifying_sees_a_frame_with_other_content() -> None:
    """Every frame can be decoded, and one holds what belongs elsewhere."""
    base, target = release(1), release(2)
    wrong = bytearray(release(2))
    wrong[:4] = b"evil"
    good, bad = encoded(base, target), encoded(base, bytes(wrong))
    head, other = PatchHeader.parse(good), PatchHeader.parse(bad)
    spliced = bytearray(good[: head.frames[0].offset] + bad[other.frames[0].offset :])
    spliced[96:104] = bad[96:104]  # the table's entry: its length
    with pytest.raises(PatchError, match="wrong block 0"):
        verify_patch(io.BytesIO(bytes(spliced)), io.BytesIO(base), root_of(base), root_of(target), io.BytesIO())
