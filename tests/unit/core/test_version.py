"""Versions: one way to write them, their order, the number that the boot script compares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.version import (
    BadVersionError,
    Version,
    decode_version,
    encode_version,
    parse_version,
    version_or_zero,
)

versions = st.builds(Version, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535))


@given(versions)
def test_text_and_number_give_the_version_back(version):
    assert parse_version(str(version)) == version
    assert decode_version(encode_version(version)) == version


@given(versions, versions)
def test_numbers_and_versions_have_the_same_order(one, other):
    assert (one < other) == (encode_version(one) < encode_version(other))


def test_the_number_is_what_the_boot_script_expects():
    assert encode_version(Version(1, 2, 3)) == 0x01020003


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-rc1", " 1.2.3", "1.2.3\n", "256.0.0", "0.256.0", "0.0.65536", "-1.0.0",
     "1.2.x", "１.2.3", "v1.2.3", "1.2.3" * 1000],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(BadVersionError) as caught:
        parse_version(text)
    assert caught.value.value == text
    assert len(str(caught.value)) < 300


@given(st.text())
def test_no_text_raises_anything_else(text):
    try:
        version = parse_version(text)
    except BadVersionError:
        return
    assert str(version) == text


@pytest.mark.parametrize("version", [Version(256, 0, 0), Version(0, -1, 0), Version(0, 0, 65536)])
def test_a_version_out_of_range_has_no_number(version):
    with pytest.raises(BadVersionError):
        encode_version(version)


@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_a_number_out_of_range_is_no_version(number):
    with pytest.raises(BadVersionError):
        decode_version(number)


def test_a_text_that_names_no_version_is_the_oldest_there_can_be():
    assert version_or_zero("1.2.3") == Version(1, 2, 3)
    assert version_or_zero("nonsense") == version_or_zero("") == Version(0, 0, 0)
