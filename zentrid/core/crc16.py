"""The checksum of files in the command language: CRC-16-CCITT, initial value 0xFFFF, input and output reflected. Pure.

It is the one that catalogues call CRC-16/MCRF4XX: of the nine bytes `123456789` it is 0x6F91. It finds a broken transfer; it
is no protection against somebody who means harm.
"""

from __future__ import annotations

import binascii
from typing import Final

_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Crc16:
    """The checksum of bytes that come in pieces."""

    def __init__(self) -> None:
        self._state = 0xFFFF

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        # The library computes the same polynomial from the other end, so each byte and the result are mirrored.
        self._state = binascii.crc_hqx(data.translate(_MIRRORED), self._state)

    @property
    def value(self) -> int:
        """The checksum of all bytes until now, 0 to 0xFFFF."""
        return int(f"{self._state:016b}"[::-1], 2)


def crc16(data: bytes) -> int:
    """Return the checksum of `data`."""
    crc = Crc16()
    crc.update(data)
    return crc.value
