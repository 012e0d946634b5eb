"""`python -m scripts.buildroot`: what Buildroot's hooks call (buildroot_external/board/common/hook)."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from scripts.board_driver.chosen import BOARD
from scripts.buildroot import output, pinned, target
from scripts.buildroot.builder import BuildrootBuilder, finished
from scripts.image import bootenv
from scripts.image.boardfiles import file_of
from scripts.image.cache import Cache, default_cache_dir
from scripts.image.release import ReleaseSpec
from scripts.image.run import BuildError
from zentrid.core.version import parse_version
from zentrid.errors import ZentriError

TOP = Path(__file__).resolve().parents[2]
SHOW_INFO_TIMEOUT_S = 300.0
_KEPT_VARIABLES = ("HOME", "LANG", "LC_ALL", "PATH", "TERM")


def environment(file: Path, *, production: bool) -> None:
    """Write the ROM's default environment."""
    file.write_text(bootenv.environment(file_of(TOP, BOARD, "boot.script").read_text(), production=production))


def post_build(folder: Path) -> None:
    """Look at Buildroot's target folder before it is packed. Raises BuildError."""
    target.tidy(folder)
    found = target.problems(folder)
    if found:
        raise BuildError("the root file system would not work:\n" + "\n".join(found[:20]))


def post_image(images: Path, cross: str) -> Path:
    """Note what was built, then make the release and the disk as the other build does; return their folder."""
    options = output.settings(Path(os.environ["BR2_CONFIG"]).read_text())
    tree, production = Path(os.environ["BUILDROOT"]), options.get("BR2_ZENTRI_PRODUCTION") == "y"
    packages = output.packages_of(show_info(tree, Path(os.environ["BASE_DIR"])), BOARD.debian)
    host = os.environ["HOST_DIR"]
    output.Note(pinned.version_of(tree), production, cross, host, packages).write(images)
    start = time.monotonic()

    def say(sentence: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {sentence}", flush=True)

    # Buildroot's own file of the configuration has make's variable in it.
    keys = options["BR2_ZENTRI_KEYS"].replace("$(BR2_EXTERNAL_ZENTRI_PATH)", str(TOP / "buildroot_external"))
    builder = BuildrootBuilder(TOP, Cache(default_cache_dir()), Path(keys), say, images_of=finished(images))
    spec = ReleaseSpec(
        options["BR2_ZENTRI_PRODUCT"], str(parse_version(options["BR2_ZENTRI_RELEASE"])), production=production
    )
    return builder.image(spec, images / "zentri")


def show_info(tree: Path, out: Path) -> dict[str, dict[str, object]]:
    """Return what Buildroot says about its packages. Raises BuildError."""
    clean = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    external = f"BR2_EXTERNAL={TOP / 'buildroot_external'}"
    done = subprocess.run(
        ["make", "-s", "--no-print-directory", "-C", tree, f"O={out}", external, "show-info"],
        env=clean, capture_output=True, text=True, timeout=SHOW_INFO_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(f"`make show-info` failed:\n{done.stderr[-2000:]}")
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.buildroot", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    boot = commands.add_parser("environment", help="write the ROM's default environment")
    boot.add_argument("--production", action="store_true")
    boot.add_argument("file", type=Path)
    build = commands.add_parser("post-build", help="look at the target folder")
    image = commands.add_parser("post-image", help="release and disk from the images")
    for command in (build, image):
        command.add_argument("folder", type=Path)
        command.add_argument("cross", help="what the compiler's path begins with")
    options = parser.parse_args(argv)
    try:
        if options.command == "environment":
            environment(options.file, production=options.production)
        elif options.command == "post-build":
            post_build(options.folder)
        else:
            print(post_image(options.folder, options.cross))
    except KeyError as error:
        print(f"error: {error} is not set; this is for Buildroot's hooks (docs/buildroot.md)", file=sys.stderr)
        return 1
    except (BuildError, ZentriError, OSError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
