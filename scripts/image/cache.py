"""The build cache: each step's result lies in a folder named by the hash of everything that went into it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CACHE_FORMAT = 1


def default_cache_dir() -> Path:
    """Return `$ZENTRI_CACHE`, else `zentri` in the user's cache folder."""
    if chosen := os.environ.get("ZENTRI_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zentri"


def hash_files(paths: Iterable[Path], base: Path) -> str:
    """Hash names (relative to `base`), modes and contents of files and of all files below folders."""
    digest = hashlib.sha256()
    for path in sorted(_files(paths)):
        digest.update(f"{path.relative_to(base)}\0{path.lstat().st_mode & 0o111:o}\0".encode())
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            yield from (p for p in path.rglob("*") if "__pycache__" not in p.parts and (p.is_symlink() or p.is_file()))
        else:
            yield path


def key_of(inputs: Mapping[str, str]) -> str:
    """Return the cache key of a step: the hash of its named inputs."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(inputs.items()))
    return hashlib.sha256(f"{CACHE_FORMAT}\n{text}".encode()).hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Cache:
    """Folders by step and key. A folder appears under its name only when it is complete."""

    def __init__(self, root: Path) -> None:
        """Use `root` (made when first needed)."""
        self.root = root

    def path(self, step: str, inputs: Mapping[str, str]) -> Path:
        """Return where the result of a step with these inputs is, or would be."""
        return self.root / step / key_of(inputs)

    def get(self, step: str, inputs: Mapping[str, str], build: Callable[[Path], None]) -> Path:
        """Return the finished folder of a step, calling `build(folder)` if it is not there yet.

        An interrupted or failed build leaves nothing behind under the final name; two builders wait for each other.
        """
        final = self.path(step, inputs)
        if final.is_dir():
            os.utime(final)
            return final
        with _locked(self.root / step / f".{final.name}.lock"):
            if final.is_dir():
                return final
            beginning = f".building-{final.name}-"
            for left in final.parent.glob(
                f"{beginning}*"
            ):  # of a build that was killed: the lock says that nobody uses it
                shutil.rmtree(left, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=beginning, dir=final.parent))
            try:
                build(work)
                work.chmod(0o755)
                work.rename(final)
            finally:
                if work.exists():
                    shutil.rmtree(work, ignore_errors=True)
        return final

    def prune(self, step: str, keep: int) -> None:
        """Keep the `keep` most recently used results of a step."""
        folder = self.root / step
        if not folder.is_dir():
            return
        done = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.stat().st_mtime)
        for old in done[: max(0, len(done) - keep)]:
            shutil.rmtree(old, ignore_errors=True)
