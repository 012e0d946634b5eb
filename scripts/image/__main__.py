"""`python -m scripts.image`: build the board's image, or one release."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

from scripts.board_driver.chosen import BOARD
from scripts.board_driver.places import CHECKOUT, built
from scripts.image.cache import Cache, default_cache_dir
from scripts.image.release import ReleaseSpec
from scripts.image.run import BuildError
from scripts.image.select import builder
from zentrid.bundle.manifest import PRODUCT_PATTERN
from zentrid.core.version import parse_version
from zentrid.errors import ZentriError

DEFAULT_PRODUCT = BOARD.product


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.image", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("image", "everything a board boots from, as links in --out"),
        ("release", "one release: its FIT and root file system, as the input of `scripts/bundle build`"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--product", default=DEFAULT_PRODUCT, help="product code (default: %(default)s)")
        command.add_argument("--release", default="1.0.0", help="version of the release (default: %(default)s)")
        command.add_argument("--production", action="store_true", help="no root shell, no boot loader prompt")
        command.add_argument(
            "--extra", action="append", default=[], metavar="PATH=FILE", help="one more file for the image"
        )
        command.add_argument("--keys", type=Path, default=built("keys"), help="folder of the boot chain's signing key")
        command.add_argument(
            "--cache", type=Path, default=default_cache_dir(), help="build cache (default: %(default)s)"
        )
        command.add_argument("--json", action="store_true", help="print one JSON object at the end")
        if name == "image":
            command.add_argument("--out", type=Path, default=built("image"), help="default: %(default)s")
    return parser


def _extra(options: list[str]) -> dict[str, str]:
    extra = {}
    for option in options:
        path, separator, source = option.partition("=")
        if not separator or not re.fullmatch(r"[a-z0-9][a-z0-9_./-]*", path) or ".." in path:
            raise BuildError(f"--extra {option}: wants PATH=FILE with PATH relative to the image's root")
        try:
            extra[path] = Path(source).read_text()
        except OSError as error:
            raise BuildError(f"--extra {option}: {source} cannot be read ({error.strerror}); check the path") from error
        except UnicodeDecodeError as error:
            raise BuildError(f"--extra {option}: {source} is no text; only text files can be added this way") from error
    return extra


def _spec(options: argparse.Namespace) -> ReleaseSpec:
    """Return what to build. Raises BuildError or BadVersionError before anything is built."""
    if not PRODUCT_PATTERN.fullmatch(options.product):
        raise BuildError(f"--product {options.product[:80]!r}: write a product code like {DEFAULT_PRODUCT}")
    version = str(parse_version(options.release))
    return ReleaseSpec(options.product, version, options.production, _extra(options.extra))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(argv)
    start = time.monotonic()
    steps: list[str] = []

    def say(sentence: str) -> None:
        steps.append(sentence)
        print(f"[{time.monotonic() - start:6.1f} s] {sentence}", file=sys.stderr, flush=True)

    if options.command == "image" and options.out.exists() and not options.out.is_dir():
        print(f"error: --out {options.out} is no folder; choose another", file=sys.stderr)
        return 1
    try:
        spec = _spec(options)
        chosen = builder(CHECKOUT, Cache(options.cache), options.keys, say)
        result = chosen.image(spec, options.out) if options.command == "image" else chosen.release(spec)
    except (BuildError, ZentriError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; finished steps are kept, run the same command again to go on", file=sys.stderr)
        return 130
    seconds = time.monotonic() - start
    if options.json:
        print(json.dumps({"result": str(result), "seconds": round(seconds, 1), "steps": steps}))
    else:
        print(f"{result} ({seconds:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
