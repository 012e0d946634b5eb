"""Reading a FIT: small, bounded, and never an exception."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fleet import make_fit, make_rootfs
from zentrid.bundle.tree import HashTree
from zentrid.core.fit import VerityTable, fit_version, read_configuration, verity_of
from zentrid.core.names import SlotName
from zentrid.core.version import Version

TREE = HashTree.from_reader(io.BytesIO(make_rootfs(2, blocks=300)))
FIT = make_fit(Version(1, 2, 3), TREE, b"k" * 100_000)


@pytest.mark.parametrize("slot", ["a", "b", "r"])
def test_version_and_verity_of_each_slot(slot: SlotName) -> None:
    found = read_configuration(FIT, slot)
    assert found is not None
    assert found.version == fit_version(FIT, slot) == Version(1, 2, 3)
    assert found.verity == VerityTable(300, 300, TREE.root.hex())


def test_a_slot_without_a_configuration() -> None:
    assert read_configuration(make_fit(Version(1, 0, 0), TREE, b"", slots=("a",)), "b") is None


def test_little_is_read_of_a_large_kernel() -> None:
    large = make_fit(Version(1, 2, 3), TREE, bytes(8 * 1024 * 1024))
    read = 0

    def read_at(offset: int, size: int) -> bytes:
        nonlocal read
        read += size
        return large[offset : offset + size]

    assert fit_version(read_at, "b") == Version(1, 2, 3)
    assert read < 20_000


@pytest.mark.skipif(shutil.which("dtc") is None, reason="needs the devicetree compiler")
def test_what_the_devicetree_compiler_writes(tmp_path: Path) -> None:
    source = """/dts-v1/; / { description = "x"; images { kernel { data = [00 11 22]; }; };
        configurations { default = "conf-a"; conf-a { kernel = "kernel"; bootargs = "quiet"; zentri-version = <0x01020003>;
        signature-1 { algo = "sha256,rsa4096"; zentri-version = <0x09090009>; }; }; }; };"""
    made = subprocess.run(["dtc", "-q", "-O", "dtb"], input=source.encode(), capture_output=True, check=True).stdout
    found = read_configuration(made, "a")
    assert found is not None
    assert (found.version, found.bootargs, found.verity) == (Version(1, 2, 3), "quiet", None)


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    assert read_configuration(data, "a") is None


@settings(max_examples=200)
@given(st.integers(0, len(FIT) - 100_001), st.integers(0, 255))
def test_no_damage_raises(position: int, value: int) -> None:
    damaged = bytearray(FIT)
    damaged[-position] = value
    read_configuration(bytes(damaged), "b")
    damaged = bytearray(FIT)
    damaged[position % 200] = value
    read_configuration(bytes(damaged), "b")


@pytest.mark.parametrize("length", [0, 4, 39, 56, 200, len(FIT) - 1])
def test_one_cut_short(length: int) -> None:
    assert read_configuration(FIT[:length], "b") is None


def test_depth_and_length_are_bounded() -> None:
    def wrapped(body: bytes) -> bytes:
        header = struct.pack(">10I", 0xD00DFEED, 56 + len(body) + 8, 56, 56 + len(body), 40, 17, 16, 0, 8, len(body))
        return header + bytes(16) + body + bytes(8)

    nest = struct.pack(">II", 1, 0) * 100_000
    assert read_configuration(wrapped(nest), "a") is None
    assert read_configuration(wrapped(struct.pack(">I", 4) * 100_000), "a") is None
    assert read_configuration(wrapped(struct.pack(">I", 2)), "a") is None


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "root=/dev/vda1",
        f"x verity 1 A B 512 4096 1 1 sha256 {'0' * 64} - ",
        f"x verity 1 A B 4096 4096 999999999 1 sha256 {'0' * 64} - ",
        f"x verity 1 A B 4096 4096 1 1 sha1 {'0' * 64} - ",
    ],
)
def test_arguments_without_our_verity_table(arguments: str) -> None:
    assert verity_of(arguments) is None
