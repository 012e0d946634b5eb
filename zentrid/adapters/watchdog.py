"""The hardware watchdog. Early user space has started it; from then on somebody must feed it or the board is reset."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

# Linux UAPI, include/uapi/linux/watchdog.h: _IOWR('W', 6, int) and _IOR('W', 7, int).
_WDIOC_SETTIMEOUT: Final = 0xC0045706
_WDIOC_GETTIMEOUT: Final = 0x80045707


class Watchdog:
    """An open watchdog device. Closing it never disarms it: a supervisor that ends must be back in time."""

    def __init__(self, path: Path, timeout_s: int) -> None:
        """Open `path`, which feeds it once, and ask for `timeout_s`. Raises OSError if there is none or it is taken.

        A driver that has a fixed timeout, or does not like this one, keeps its own: it is armed and must be fed all the same.
        """
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.timeout_s = timeout_s
        """What the driver really set, as far as it tells."""
        try:
            fcntl.ioctl(self._fd, _WDIOC_SETTIMEOUT, struct.pack("i", timeout_s))
        except OSError as error:
            log.error("the watchdog does not take a timeout of %d s: %s", timeout_s, error)
        with suppress(OSError):
            self.timeout_s = struct.unpack("i", fcntl.ioctl(self._fd, _WDIOC_GETTIMEOUT, struct.pack("i", 0)))[0]

    def feed(self) -> None:
        """Start the countdown anew."""
        os.write(self._fd, b"\n")  # any byte but the magic `V`

    def close(self) -> None:
        """Close the device; the countdown goes on."""
        os.close(self._fd)
