"""The disk of a new board: GPT with every partition of the design, from one genimage description."""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts.image.run import run
from zentrid.core import names
from zentrid.core.bootstate import BootState, encode
from zentrid.core.version import parse_version

DISK_UUID = "5a454e54-0000-4000-8000-000000000000"
DATA_UUID = "5a454e54-0009-4000-8000-0000000000da"
LINUX_TYPE = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def factory_state(version: str) -> BootState:
    """Return the boot state of a board that leaves manufacture with a tested release in slot A."""
    return BootState(seq=1, a_left=names.BOOT_TRIES, b_left=0, a_good=True, floor=parse_version(version))


def genimage_config() -> str:
    """Return genimage's description of the disk, made from the shared partition table."""
    parts = []
    for entry in names.PARTITIONS:
        image = f'\t\timage = "{entry.name}.part"\n' if entry.name not in ("identity", "kernel_b", "rootfs_b") else ""
        parts.append(
            f"\tpartition {entry.name} {{\n{image}\t\tsize = {entry.size_bytes}\n"
            f'\t\tpartition-uuid = "{entry.partuuid}"\n\t\tpartition-type-uuid = "{LINUX_TYPE}"\n\t}}'
        )
    body = "\n".join(parts)
    return (
        "image disk.img {\n\thdimage {\n\t\tpartition-table-type = gpt\n"
        f'\t\tdisk-uuid = "{DISK_UUID}"\n\t\talign = 1M\n\t}}\n{body}\n}}\n'
    )


def build_disk(release: Path, version: str, out: Path, *, log: Path) -> None:
    """Make `out/disk.img` with a release in slot A and as the safe-mode system, slot B empty, data formatted, identity blank."""
    inputs = out / "inputs"
    inputs.mkdir()
    state = encode(factory_state(version))
    first, second = names.BOOTSTATE_COPY_OFFSETS_BYTES
    (inputs / "bootstate.part").write_bytes(state + bytes(second - first - len(state)) + state)
    for slot in ("r", "a"):
        shutil.copy(release / "kernel.itb", inputs / f"kernel_{slot}.part")
        shutil.copy(release / "rootfs.img", inputs / f"rootfs_{slot}.part")
    data = inputs / "data.part"
    with data.open("wb") as stream:
        stream.truncate(names.partition("data").size_bytes)
    run(
        ["mke2fs", "-q", "-t", "ext4", "-L", "data", "-U", DATA_UUID, "-E", f"hash_seed={DATA_UUID},lazy_itable_init=0",
         "-m", "1", data],
        log=log, env={"E2FSPROGS_FAKE_TIME": "1767225600"},
    )  # fmt: skip
    (out / "genimage.cfg").write_text(genimage_config())
    run(
        ["genimage", "--config", out / "genimage.cfg", "--inputpath", inputs, "--outputpath", out,
         "--tmppath", out / "tmp", "--rootpath", _empty(out)],
        log=log,
    )  # fmt: skip
    for folder in ("inputs", "tmp", "empty"):
        shutil.rmtree(out / folder, ignore_errors=True)


def _empty(out: Path) -> Path:
    folder = out / "empty"
    folder.mkdir()
    return folder
