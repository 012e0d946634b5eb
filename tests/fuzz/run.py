"""Runs the fuzzer: `python -m tests.fuzz.run [--seconds N] [target …]`. See docs/fuzzing.md.

Each target runs in a process of its own, one after the other, the time split between them. What it finds is left in
build/fuzz/<target>/, with the command that shows it again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.seeds import CORPUS, dictionary
from tests.fuzz.targets import TARGETS

CHECKOUT = Path(__file__).resolve().parents[2]
FOUND = CHECKOUT / "build" / "fuzz"
MAX_INPUT_BYTES = 64 * 1024
MAX_MEMORY_MIB = 768
MAX_INPUT_S = 10


def main() -> int:
    """Fuzz every target that was named, or all; return 1 if one of them found something."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of: {', '.join(TARGETS)}; none: all")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together (default: 60)")
    parser.add_argument("--keep", action="store_true", help="put new inputs that reach more code into the corpus")
    parser.add_argument("--input", type=Path, help="run one input through one target and do not fuzz")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    unknown = sorted(set(names) - set(TARGETS))
    if unknown:
        parser.error(f"there is no target {unknown[0]}; there are: {', '.join(TARGETS)}")
    if options.input is not None:
        print("accepted" if TARGETS[names[0]](options.input.read_bytes()) else "refused")
        return 0
    seconds = max(options.seconds // len(names), 1)
    failed = [name for name in names if not fuzz(name, seconds, keep=options.keep)]
    for name in failed:
        print(f"fuzz: {name} found something; it is in {FOUND / name}. Show it again with:")
        print(f"  {sys.executable} -m tests.fuzz.run {name} --input <file>")
    print(f"fuzz: {len(names) - len(failed)} of {len(names)} targets found nothing in {seconds} s each")
    return 1 if failed else 0


def fuzz(name: str, seconds: int, *, keep: bool) -> bool:
    """Fuzz one target in a process of its own; tell whether it found nothing."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        words = Path(scratch) / "words"
        known = dictionary(name)
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in known))
        new = CORPUS / name if keep else Path(scratch) / "new"
        new.mkdir(exist_ok=True)
        arguments = [
            f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}", f"-timeout={MAX_INPUT_S}",
            f"-rss_limit_mb={MAX_MEMORY_MIB}", f"-artifact_prefix={folder}/", *([f"-dict={words}"] if known else []),
            str(new), str(CORPUS / name),
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            ended = subprocess.run(
                [sys.executable, "-m", "tests.fuzz.child", name, *arguments],
                cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT, timeout=seconds + 300, check=False,
            )  # fmt: skip
    lines = (folder / "log").read_text(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.startswith(("Done", "#"))), "no news")
    print(f"fuzz: {name}: {'nothing' if ended.returncode == 0 else 'FOUND'} ({last.strip()})", flush=True)
    if ended.returncode != 0:
        print("\n".join(lines[-40:]))
    return ended.returncode == 0


def _escaped(word: bytes) -> str:
    plain = (32 <= byte < 127 and byte not in b'"\\' for byte in word)
    return "".join(chr(byte) if ok else f"\\x{byte:02x}" for byte, ok in zip(word, plain, strict=True))


if __name__ == "__main__":
    sys.exit(main())
