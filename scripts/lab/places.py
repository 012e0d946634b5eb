"""Where the lab keeps its things. Everything lies under one folder that `make clean` removes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scripts.board_driver.chosen import BOARD
from scripts.board_driver.places import CHECKOUT, DEFAULT_IMAGE, built

TOP = CHECKOUT
PRODUCT = BOARD.product
KEYS = built("keys")
"""Where the key of the boot chain is."""
PYTHON = TOP / ".venv/bin/python"


@dataclass(frozen=True)
class Places:
    """The folders of one lab; `root` is its own, `keys` and `image` may be shared between labs."""

    root: Path
    keys: Path = KEYS
    image: Path = DEFAULT_IMAGE

    @property
    def fleet(self) -> Path:
        """Keys and certificates of the fleet: DEMO ONLY, made at set-up."""
        return self.root / "fleet"

    @property
    def dms(self) -> Path:
        """The DMS's data."""
        return self.root / "dms"

    @property
    def identity(self) -> Path:
        """The board's identity."""
        return self.root / "identity"

    @property
    def ssh_key(self) -> Path:
        """The developer's key that a development board lets in."""
        return self.root / "ssh/id_ed25519"

    @property
    def bundles(self) -> Path:
        """Signed bundles by version."""
        return self.root / "bundles"

    @property
    def metadata(self) -> Path:
        """The publisher's signed role file of the product."""
        return self.root / "metadata"


DEMO = Places(built("demo"))
