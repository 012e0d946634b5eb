"""The signing key of the boot chain, the signed FIT of a release, and the ROM that trusts it."""

from __future__ import annotations

import datetime
import re
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from scripts.board_driver.boards import BoardKind
from scripts.image.run import BuildError, run
from zentrid.bundle.tree import BLOCK_BYTES, HashTree
from zentrid.core import names
from zentrid.core.version import encode_version, parse_version

KEY_NAME = "fit"
ALGORITHM = "sha256,rsa4096"
EMPTY_FIT = """/dts-v1/;
/ {
    description = "none"; #address-cells = <1>;
    images { kernel {
        data = /incbin/("empty"); type = "kernel"; arch = "@ARCH@"; os = "linux"; compression = "none"; load = <0>; entry = <0>;
        hash-1 { algo = "sha256"; };
    }; };
    configurations { default = "conf"; conf {
        kernel = "kernel"; signature-1 { algo = "@ALGORITHM@"; key-name-hint = "@KEY@"; sign-images = "kernel"; };
    }; };
};
"""
SECTORS_PER_BLOCK = BLOCK_BYTES // 512


def ensure_key(keys: Path) -> None:
    """Make the boot chain's signing key (`fit.key`, mode 0600) and its certificate if the folder has none."""
    if (keys / f"{KEY_NAME}.crt").is_file():
        return
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Zentri FIT signing key")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * 50))  # U-Boot uses the public key alone
        .sign(key, hashes.SHA256())
    )
    private = keys / f"{KEY_NAME}.key"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (keys / f"{KEY_NAME}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def kernel_arguments(slot: names.SlotName, tree: HashTree) -> str:
    """Return the kernel arguments of a slot: its verified root, made by the kernel itself (Linux, dm-init.rst, verity.rst).

    `panic=-1`: restart at once; what the kernel said is in RAM already.
    `gpt`: without it Linux never looks at the second partition table, and one damaged sector would hang every slot for ever.
    """
    part = f"PARTUUID={names.partition(f'rootfs_{slot}').partuuid}"
    table = (
        f"rootfs,,,ro,0 {tree.n_blocks * SECTORS_PER_BLOCK} verity 1 {part} {part} {BLOCK_BYTES} {BLOCK_BYTES} "
        f"{tree.n_blocks} {tree.n_blocks} sha256 {tree.root.hex()} - 1 restart_on_corruption"
    )
    return (
        "console=ttyAMA0 panic=-1 gpt root=/dev/dm-0 rootfstype=erofs ro rootwait loglevel=2 printk.time=1 i6300esb.heartbeat=60 "
        f'dm-mod.waitfor={part} dm-mod.create="{table}"'
    )


def board_template(template: str, board: BoardKind) -> str:
    """Fill in what the source of a FIT says about the board."""
    return template.replace("@ARCH@", board.fit_arch).replace("@LOAD@", f"0x{board.load_address:08x}")


def fit_source(template: str, board: BoardKind, kernel: Path, tree: HashTree, product: str, version: str) -> str:
    """Fill in the FIT's source for one release."""
    number = encode_version(parse_version(version))
    if number >> (board.bits - 1):
        raise BuildError(
            f"version {version}: the boot loader of board {board.name} counts to 127.255.65535; choose a lower one"
        )
    nodes = []
    for slot in (*names.SLOTS, names.SAFE_SLOT):
        arguments = kernel_arguments(slot, tree).replace('"', '\\"')
        nodes.append(
            f"\t\tconf-{slot} {{\n"
            f'\t\t\tkernel = "kernel";\n'
            f'\t\t\tbootargs = "{arguments}";\n'
            f"\t\t\t{names.FIT_VERSION_PROPERTY} = <0x{number:08x}>;\n"
            f"\t\t\tsignature-1 {{\n"
            f'\t\t\t\talgo = "{ALGORITHM}";\n'
            f'\t\t\t\tkey-name-hint = "{KEY_NAME}";\n'
            f'\t\t\t\tsign-images = "kernel";\n'
            f"\t\t\t}};\n\t\t}};"
        )
    filled = board_template(template, board).replace("@DESCRIPTION@", f"{product}-{version}")
    return filled.replace("@KERNEL@", str(kernel)).replace("@CONFIGURATIONS@", "\n".join(nodes))


def build_fit(
    template: Path,
    board: BoardKind,
    kernel: Path,
    tree: HashTree,
    *,
    product: str,
    version: str,
    keys: Path,
    out: Path,
    log: Path,
) -> None:
    """Make `out/kernel.itb`, signed, padded to whole 4 KiB blocks."""
    shutil.copy(kernel, out / "Image")
    source = out / "slot.its"
    source.write_text(fit_source(template.read_text(), board, Path("Image"), tree, product, version))
    fit = out / "kernel.itb"
    run(["mkimage", "-D", f"-I dts -O dtb -p 4096 -i {out}", "-f", source, "-k", keys, "-r", fit], cwd=out, log=log)
    (out / "Image").unlink()
    size = fit.stat().st_size
    limit = names.partition("kernel_a").size_bytes
    if size > limit:
        raise BuildError(f"the kernel's FIT has {size} bytes, its partition only {limit}")
    with fit.open("ab") as stream:
        stream.write(bytes(-size % BLOCK_BYTES))


def board_tree(board: BoardKind, additions: Path, out: Path, *, log: Path) -> Path:
    """Dump QEMU's device tree for exactly the machine that will run, add the board's nodes, drop fixed random seeds."""
    dump, source, result = out / "dump.dtb", out / "board.dts", out / "board.dtb"
    arguments = list(board.machine)
    machine = arguments.index("-M") + 1
    arguments[machine] += f",dumpdtb={dump}"
    run([board.qemu, "-nodefaults", "-no-user-config", *arguments, "-display", "none"], log=log, timeout_s=60)
    run(["dtc", "-q", "-I", "dtb", "-O", "dts", "-o", source, dump], log=log)
    text = re.sub(r"^\s*(kaslr-seed|rng-seed) = [^;]*;\n", "", source.read_text(), flags=re.MULTILINE)
    source.write_text(text + additions.read_text())
    run(["dtc", "-q", "-I", "dts", "-O", "dtb", "-S", "65536", "-o", result, source], log=log)
    return result


def build_rom(board: BoardKind, uboot: Path, additions: Path, keys: Path, out: Path, *, log: Path) -> None:
    """Make `out/rom.bin`: U-Boot with the board's tree behind it, the public key in the tree marked as required."""
    tree = board_tree(board, additions, out, log=log)
    # mkimage puts the public key into the tree while it signs something with it; that something is thrown away.
    (out / "empty").write_bytes(b"\0")
    source = out / "empty.its"
    source.write_text(board_template(EMPTY_FIT, board).replace("@ALGORITHM@", ALGORITHM).replace("@KEY@", KEY_NAME))
    include = f"-I dts -O dtb -p 4096 -i {out}"
    run(["mkimage", "-D", include, "-f", source, "-k", keys, "-K", tree, "-r", out / "empty.itb"], cwd=out, log=log)
    if b"required" not in tree.read_bytes():
        raise BuildError(f"mkimage did not put the public key into the board's tree; its output is in {log}")
    code = (uboot / "u-boot-nodtb.bin").read_bytes()
    (out / "rom.bin").write_bytes(code + tree.read_bytes())
    for name in ("empty", "empty.its", "empty.itb", "dump.dtb"):
        (out / name).unlink()
