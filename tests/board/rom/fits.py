"""Signed FITs around the tiny kernel of this folder, one for each thing that a kernel partition can hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

from scripts.board_driver.chosen import BOARD
from scripts.image.fit import ALGORITHM, KEY_NAME, board_template
from scripts.image.run import run
from zentrid.core import names
from zentrid.core.version import Version, encode_version

OF_PROCESSOR = {
    64: ("-mstrict-align", "-mcmodel=tiny"),
    32: ("-march=armv7-a", "-mfloat-abi=soft", "-marm", "-mno-unaligned-access"),
}
FLAGS = [
    "-Os", "-Wall", "-Werror", "-ffreestanding", "-fno-builtin", "-nostdlib", "-static", "-fno-pie", "-no-pie",
    f"-Wl,-N,-Ttext=0x{BOARD.load_address + 0x100:x},--section-start=.head=0x{BOARD.load_address:x}",
    "-Wl,--build-id=none,-e0,--no-warn-rwx-segments", "-mgeneral-regs-only", *OF_PROCESSOR[BOARD.bits],
]  # fmt: skip
"""With the MMU off no access may be unaligned."""
CONFIGURATION = """conf-@SLOT@ {
    kernel = "kernel"; bootargs = "@ARGUMENTS@"; @PROPERTY@ = <@VERSION@>;
    signature-1 { algo = "@ALGORITHM@"; key-name-hint = "@KEY@"; sign-images = "kernel"; };
};
"""


def build_kernel(folder: Path) -> Path:
    """Compile the tiny kernel; return its image."""
    elf, image = folder / "tiny.elf", folder / "Image"
    source = Path(__file__).with_name("tiny.c")
    subprocess.run([f"{BOARD.cross}gcc", *FLAGS, "-o", str(elf), str(source)], check=True)
    subprocess.run([f"{BOARD.cross}objcopy", "-O", "binary", str(elf), str(image)], check=True)
    return image


def build_fit(folder: Path, template: Path, kernel: Path, keys: Path, arguments: str, version: Version) -> bytes:
    """Return a FIT with the tiny kernel, signed with the boot chain's key, made from the product's own template."""
    values = {
        "ARGUMENTS": arguments, "PROPERTY": names.FIT_VERSION_PROPERTY, "VERSION": f"0x{encode_version(version):08x}",
        "ALGORITHM": ALGORITHM, "KEY": KEY_NAME,
    }  # fmt: skip
    nodes = ""
    for slot in (*names.SLOTS, names.SAFE_SLOT):
        node = CONFIGURATION.replace("@SLOT@", slot)
        for name, value in values.items():
            node = node.replace(f"@{name}@", value)
        nodes += node
    text = board_template(template.read_text(), BOARD).replace("@DESCRIPTION@", "tiny").replace("@KERNEL@", kernel.name)
    source, fit = folder / "tiny.its", folder / "tiny.itb"
    source.write_text(text.replace("@CONFIGURATIONS@", nodes))
    command: list[str | Path] = [
        "mkimage",
        "-D",
        f"-I dts -O dtb -p 4096 -i {kernel.parent}",
        "-f",
        source,
        "-k",
        keys,
        "-r",
        fit,
    ]
    run(command, cwd=folder, log=folder / "mkimage.log")
    return fit.read_bytes()


def spoilt(fit: bytes, where: bytes, number: int = 0) -> bytes:
    """Return a FIT with one bit turned over in the place that reads `where`, in place `number` of those that do."""
    at = -1
    for _ in range(number + 1):
        at = fit.index(where, at + 1)
    changed = bytearray(fit)
    changed[at + 1] ^= 1
    return bytes(changed)
