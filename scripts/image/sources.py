"""What comes from Debian: binary packages for the board, source packages for kernel and boot loader.

mmdebstrap names the mirror and the keys; in `chrootless` mode with the `extract` variant it needs neither root nor emulation.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from scripts.image.run import BuildError, run

SUITE = "trixie"
LINUX_PACKAGE = "linux-source-6.12"
UBOOT_SOURCE = "u-boot"


def fetch_packages(architecture: str, packages: list[str], tar: Path, *, log: Path) -> None:
    """Unpack packages of an architecture and their dependencies into a tar file, without running any of their scripts.

    Beside it, `packages.tsv` lists them: name, version, architecture, source.
    """
    fields = r"${Package}\t${Version}\t${Architecture}\t${source:Package}\n"
    listing = shlex.quote(str(tar.with_name("packages.tsv")))
    hook = f"""for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb -W --showformat='{fields}' "$deb"; done > {listing}"""
    run(_mmdebstrap(architecture, packages, [f"--extract-hook={hook}"], tar), log=log, timeout_s=900)


def fetch_sources(out: Path, *, log: Path) -> None:
    """Put `linux.tar.xz` and `u-boot.tar.*` of the suite into `out`."""
    # The kernel's source is a binary package; U-Boot's is a source package, for which the hook adds source entries
    # to the private apt settings that mmdebstrap made: the host's own are never touched.
    hook = (
        'set -e; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"; '
        'sed -n "s/^deb /deb-src /p" "$1/etc/apt/sources.list" > "$1/etc/apt/sources.list.d/source.list"; '
        f"apt-get update; cd {shlex.quote(str(out))}; apt-get source --tar-only {UBOOT_SOURCE}; "
        f'cp "$1"/usr/src/{LINUX_PACKAGE}.tar.xz linux.tar.xz'
    )
    run(_mmdebstrap("amd64", [LINUX_PACKAGE], [f"--extract-hook={hook}"], Path("/dev/null")), log=log, timeout_s=900)
    tars = list(out.glob("u-boot_*.orig.tar.*"))
    if len(tars) != 1 or not (out / "linux.tar.xz").is_file():
        raise BuildError(f"the sources of Linux and U-Boot did not arrive; apt's output is in {log}")
    tars[0].rename(out / f"u-boot.tar{tars[0].suffix}")
    (out / "versions.txt").write_text(f"u-boot {tars[0].name.split('_')[1].split('.orig')[0]}\n")


def _mmdebstrap(architecture: str, packages: list[str], more: list[str], target: Path) -> list[str]:
    return [
        "mmdebstrap", "--mode=chrootless", "--variant=extract", f"--architectures={architecture}",
        f"--include={','.join(packages)}", *more, "--format=null" if target == Path("/dev/null") else "--format=tar",
        SUITE, str(target),
    ]  # fmt: skip
