"""The checksum of files: the catalogue's check value, and the bit-by-bit definition."""

from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.crc16 import Crc16, crc16


def bit_by_bit(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return crc


def test_check_value_of_the_catalogue() -> None:
    assert crc16(b"123456789") == 0x6F91
    assert crc16(b"") == 0xFFFF


@given(st.binary(max_size=200), st.integers(0, 200))
def test_it_is_the_polynomial_however_the_bytes_are_cut(data: bytes, at: int) -> None:
    crc = Crc16()
    crc.update(data[:at])
    crc.update(data[at:])
    assert crc.value == bit_by_bit(data) == crc16(data)
