"""What the benchmark builds beside the product's image, which it leaves alone: a kernel with more drivers, a tools disk.

The kernel serves every engine. The tools disk holds a Debian tree with the other engines, and this checkout's `zentrid`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts.bench.keys import Keys
from scripts.image import compile, rootfs
from scripts.image.cache import hash_files
from scripts.image.release import Builder
from scripts.image.run import run
from scripts.image.sources import SUITE, fetch_packages
from zentrid.core import names

FRAGMENT = "scripts/bench/linux.fragment"
PACKAGES = "scripts/bench/board-packages.txt"
ON_BOARD = ("scripts/bench/onboard.py", "scripts/bench/prepare.sh", "scripts/bench/raucstate.py")
PRUNE = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/lib/systemd",
    "var/cache",
    "usr/share/perl5",
)
KEEP = {"bench-linux": 2, "bench-debian": 2, "bench-tools": 4}


def device_of(partition: str) -> str:
    """Return the device of a partition of the board's only other disk, as Linux numbers them."""
    number = [entry.name for entry in names.PARTITIONS].index(partition) + 1
    return f"/dev/vda{number}"


def rauc_config() -> str:
    """Return RAUC's system configuration: the board's two slots, a kernel and a root file system each."""
    parts = [
        "[system]\ncompatible=bench\nbootloader=noop\ndata-directory=/data/rauc\nmountprefix=/run/rauc\nbundle-formats=verity\n",
        "[keyring]\npath=/etc/rauc/signer.pem\n",
        "[streaming]\ntls-ca=/etc/rauc/tls-ca.pem\n",
    ]
    for number, slot in enumerate(names.SLOTS):
        parts.append(
            f"[slot.rootfs.{number}]\ndevice={device_of(f'rootfs_{slot}')}\ntype=raw\nbootname={slot.upper()}\n"
        )
        parts.append(
            f"[slot.kernel.{number}]\ndevice={device_of(f'kernel_{slot}')}\ntype=raw\nparent=rootfs.{number}\n"
        )
    return "\n".join(parts)


SWUPDATE_CONFIG = 'globals :\n{\n\tverbose = false;\n\tloglevel = 3;\n\tbootloader = "none";\n};\n'
ACCOUNTS = "root:x:0:0::/root:/bin/sh\nmessagebus:x:101:101::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
GROUPS = "root:x:0:\nmessagebus:x:101:\nnogroup:x:65534:\n"


class BenchBuilder(Builder):
    """The image builder with the benchmark's own steps."""

    def bench_linux(self) -> Path:
        """Return the folder with the benchmark's kernel, `Image`."""
        source = self.sources()
        fragments = [*self.fragments("linux.fragment"), self.top / FRAGMENT]
        inputs = {"source": source.name, "config": hash_files(fragments, self.top)}

        def build(out: Path, log: Path) -> None:
            compile.build_linux(source, self.board, fragments, out, log=log)

        return self._step("bench-linux", inputs, "compiling the benchmark's Linux (some minutes)", build)

    def debian(self) -> Path:
        """Return the folder with the Debian tree of the other engines, `root`."""
        inputs = {"suite": SUITE, "packages": self._hash(PACKAGES), "prune": " ".join(PRUNE)}

        def build(out: Path, log: Path) -> None:
            packages = [
                line for line in (self.top / PACKAGES).read_text().split("\n") if line and not line.startswith("#")
            ]
            tar, root = out / "packages.tar", out / "root"
            fetch_packages(self.board.debian, packages, tar, log=log)
            root.mkdir()
            run(["tar", "xf", tar, "-C", root, "--no-same-owner", "--exclude=./dev/*"], log=log)
            run(["chmod", "-R", "u+rwX", root], log=log)
            tar.unlink()
            for name in PRUNE:
                shutil.rmtree(root / name, ignore_errors=True)

        return self._step("bench-debian", inputs, "fetching the other engines from Debian", build)

    def tools(self, keys: Keys) -> Path:
        """Return the folder with the tools disk, `tools.erofs`, and the list of its packages, `packages.tsv`."""
        debian, product = self.debian(), self.tree(production=False)
        inputs = {
            "debian": debian.name, "product": product.name, "code": self._hash("scripts/bench/image.py", *ON_BOARD),
            "keys": hash_files([keys.authority, keys.signer], keys.folder),
        }  # fmt: skip

        def build(out: Path, log: Path) -> None:
            root = out / "root"
            shutil.copytree(debian / "root", root, symlinks=True)
            self._configure(root, keys)
            shutil.copytree(product / "root" / rootfs.DIST_PACKAGES / "zentrid", root / "bench/zentrid")
            rootfs.normalize_modes(root)
            run(["mkfs.erofs", "-T0", "-U", rootfs.EROFS_UUID, "--all-root", out / "tools.erofs", root], log=log)
            shutil.rmtree(root)
            shutil.copy(debian / "packages.tsv", out)

        return self._step("bench-tools", inputs, "packing the benchmark's tools disk", build)

    def _configure(self, root: Path, keys: Keys) -> None:
        files = {
            "etc/rauc/system.conf": rauc_config(),
            "etc/rauc/tls-ca.pem": keys.authority.read_text(),
            "etc/rauc/signer.pem": keys.signer.read_text(),
            "etc/ssl/certs/ca-certificates.crt": keys.authority.read_text(),
            "etc/swupdate.cfg": SWUPDATE_CONFIG,
            "etc/hwrevision": "bench 1.0\n",
            "etc/passwd": ACCOUNTS,
            "etc/group": GROUPS,
            "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        }
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_text(text)
        for folder in ("proc", "sys", "dev", "run", "tmp", "data", "mnt", "bench"):
            (root / folder).mkdir(exist_ok=True)
        for source in ON_BOARD:
            shutil.copy(self.top / source, root / "bench")
