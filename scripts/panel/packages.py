"""`python -m scripts.panel.packages`: what the page has from elsewhere, fetched once into the user's cache.

`package-lock.json` pins versions and contents; npm refuses what differs. Nothing of a package is run while it is fetched.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from scripts.board_driver.errors import MachineError
from scripts.image.cache import Cache, default_cache_dir

HERE: Final = Path(__file__).parent
PINS: Final = ("package.json", "package-lock.json")
FILES: Final = {
    "xterm.js": "@xterm/xterm/lib/xterm.js",
    "xterm.css": "@xterm/xterm/css/xterm.css",
    "addon-fit.js": "@xterm/addon-fit/lib/addon-fit.js",
}
"""The page's name for a file, and where it is in the packages."""
FETCH_S: Final = 300.0
_KEPT: Final = 2
_CI: Final = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
_SAID_CHARS: Final = 400


def fetched(cache: Path | None = None) -> Path:
    """Return the folder with `FILES`, which are fetched if they are not in the cache. Raises MachineError with what to do."""
    found = Cache(cache or default_cache_dir())
    folder = found.get("panel", {name: _digest(HERE / name) for name in PINS} | FILES, _fetch)
    found.prune("panel", _KEPT)
    return folder


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetch(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MachineError(
            "the panel's console is xterm.js, which npm fetches once, and npm is not installed; "
            "install your distribution's package `npm`, then run the same command again"
        )
    with tempfile.TemporaryDirectory(prefix="zentri-panel-") as name:
        new = Path(name)
        for pin in PINS:
            shutil.copy(HERE / pin, new)
        _run([npm, *_CI], new)
        for file, inside in FILES.items():
            if not (new / "node_modules" / inside).is_file():
                raise MachineError(f"the packages came without {inside}; scripts/panel/packages.py says what is used")
            shutil.copy(new / "node_modules" / inside, folder / file)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise MachineError(f"npm did not fetch xterm.js within {FETCH_S:.0f} s; it needs the network once") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:_SAID_CHARS]
        raise MachineError(f"npm could not fetch xterm.js, for which it needs the network once: {said}")


def main() -> int:
    """Fetch; return the exit status."""
    try:
        fetched()
    except (MachineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
