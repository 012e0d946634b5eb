"""The hardware watchdog. Early user space has started it; from then on somebody must feed it or the board is reset."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

# Linux UAPI, include/uapi/linux/watchdog.h: _IOWR('W', 6, int) and _IOR('W', 7, int).
_WDIOC_SETTIMEOUT: Final = 0xC0045706
_WDIOC_GETTIMEOUT: Final = 0x80045707


class Watchdog:
    """An open watchdog device. Closing it never disarms it: a supervisor that ends must be back in time."""

    def __init__(self, path: Path, timeout_s: int) -> None:
        """Open `path`, which feeds it once, and ask for `timeout_s`. Raises OSError if there is none or it is taken."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        fcntl.ioctl(self._fd, _WDIOC_SETTIMEOUT, struct.pack("i", timeout_s))
        raw = fcntl.ioctl(self._fd, _WDIOC_GETTIMEOUT, struct.pack("i", 0))
        self.timeout_s: int = struct.unpack("i", raw)[0]
        """What the driver really set."""

    def feed(self) -> None:
        """Start the countdown anew."""
        os.write(self._fd, b"\n")  # any byte but the magic `V`

    def close(self) -> None:
        """Close the device; the countdown goes on."""
        os.close(self._fd)
