"""What the device is: read from files that may be damaged."""

import json

import pytest

from zentrid.adapters.about import IdentityError, read_boot_arguments, read_identity, read_release

GOOD = {
    "uuid": "0A0b0c0d-0000-4000-8000-000000000001",
    "mac": "52:54:00:aa:bb:cc",
    "dms_host": "10.0.2.2",
    "dms_port": 8443,
}


def test_identity(tmp_path):
    (tmp_path / "identity.json").write_text(json.dumps(GOOD))
    identity = read_identity(tmp_path)
    assert identity.uuid == str(GOOD["uuid"]).lower()
    assert identity.mac == "52:54:00:AA:BB:CC"
    assert (identity.dms_host, identity.dms_port) == ("10.0.2.2", 8443)


@pytest.mark.parametrize(
    "text",
    [
        None, "", "{", "[]", "\xff", json.dumps({**GOOD, "uuid": "x"}), json.dumps({**GOOD, "mac": "1"}),
        json.dumps({**GOOD, "dms_port": "many"}), "[" * 60_000,
        json.dumps({**GOOD, "dms_port": float("inf")}), json.dumps({k: v for k, v in GOOD.items() if k != "mac"}),
    ],
)  # fmt: skip
def test_a_damaged_identity_says_what_to_do(tmp_path, text):
    if text is not None:
        (tmp_path / "identity.json").write_text(text)
    with pytest.raises(IdentityError, match="provision"):
        read_identity(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("console=x zentri.slot=b zentri.warm=1 zentri.state_lost=0", ("b", True, False)),
        ("zentri.slot=a zentri.warm=0 zentri.state_lost=1\n", ("a", False, True)),
        ("console=x", ("r", False, False)),
        ("zentri.slot=q", ("r", False, False)),
    ],
)
def test_boot_arguments(tmp_path, line, expected):
    (tmp_path / "cmdline").write_text(line)
    found = read_boot_arguments(tmp_path / "cmdline")
    assert (found.slot, found.warm, found.state_lost) == expected


def test_release(tmp_path):
    about = {
        "product": "DEMO-VIRT_SENSOR", "version": "1.0.0", "built": "2026-01-01T00:00:00Z", "board": "virt",
        "zentri_version": "1.0.0", "development": True,
    }  # fmt: skip
    (tmp_path / "release.json").write_text(json.dumps({**about, "later": "addition"}))
    assert read_release(tmp_path / "release.json").version == "1.0.0"
