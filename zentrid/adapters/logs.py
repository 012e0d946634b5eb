"""The supervisor's journal: a small rotating file on RAM, so that a flood of messages costs neither flash nor memory."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path
from typing import Final

FILE_BYTES: Final = 256 * 1024
OLD_FILES: Final = 1


def set_up_log(path: Path) -> None:
    """Send every log record of this process to `path`, and to one older file when that is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
