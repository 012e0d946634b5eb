"""Manifests: one way to write them, every rule with its failing case, and nothing but ManifestError for rubbish."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bundle.making import item, manifest
from zentrid.bundle.manifest import (
    MAX_ITEMS,
    MAX_MANIFEST_BYTES,
    MAX_REMOVALS,
    ElfFacts,
    Manifest,
    ManifestError,
    Removal,
    canonical_json,
    is_safe_path,
    parse_manifest,
)
from zentrid.core.version import Version

ELF = ElfFacts("AARCH64", ("libc.so.6", "libstdc++.so.6"), "00ff", pie=True, relro="full", nx=True)
ROOTFS = item(b"rootfs")
KERNEL = item(b"kernel", "kernel")
APP = item(b"app", "app", "hello", version=Version(1, 0, 0), entry="bin/hello", kind="tar", elf=ELF)
FILE = item(b"file", "file", "motd", path="etc/motd", kind="data")
WHOLE = manifest(
    KERNEL, ROOTFS, APP, FILE,
    min_version=Version(1, 0, 0), boot_floor=Version(1, 1, 0), allow_downgrade_to=Version(1, 2, 3), notes="größer ☃",
)  # fmt: skip

CHANGES = manifest(APP, remove=(Removal("app", "old"), Removal("file", "etc_old")))
"""Only applications and files."""


def changed(**members):
    """Return WHOLE as a JSON object with other members; `...` takes one out."""
    document = {**WHOLE.to_json(), **members}
    return {key: value for key, value in document.items() if value is not ...}


def changed_item(index=1, **members):
    """Return WHOLE as a JSON object with one item's members changed."""
    items = [entry.to_json() for entry in WHOLE.items]
    items[index] = {key: value for key, value in {**items[index], **members}.items() if value is not ...}
    return changed(items=items)


def test_round_trip():
    assert parse_manifest(WHOLE.to_bytes()) == WHOLE
    assert parse_manifest(manifest().to_bytes()) == manifest()


def test_bytes_are_canonical_and_stable():
    text = WHOLE.to_bytes().decode()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert '"size":6' in text
    assert '"version":"1.2.3"' in text


def test_removals_are_written_only_where_there_are_some():
    assert parse_manifest(CHANGES.to_bytes()) == CHANGES
    assert b'"remove":[{"name":"old","type":"app"},{"name":"etc_old","type":"file"}]' in CHANGES.to_bytes()
    assert b"remove" not in WHOLE.to_bytes()
    with pytest.raises(ManifestError, match="canonically"):  # else one release could be written in two ways
        parse_manifest(canonical_json(changed(remove=[])))
    # One that only takes away is a release too; one that does nothing is none.
    only = replace(CHANGES, items=())
    assert parse_manifest(only.to_bytes()) == only
    assert not only.payloads
    # An application and a file may have the same name.
    assert replace(CHANGES, remove=(Removal("file", APP.name),)).remove


def test_questions_to_a_manifest():
    assert WHOLE.has_firmware
    assert not CHANGES.has_firmware
    assert WHOLE.item("kernel") == KERNEL
    assert manifest().item("kernel") is None
    assert WHOLE.target_path == "DEMO-VIRT_SENSOR/1.2.3/manifest.json"
    twin = replace(FILE, name="other", path="etc/other")
    assert list(manifest(FILE, twin).payloads.values()) == [FILE]


BAD = {
    "format": [changed(format=2), changed(format="1"), changed(format=True), changed(format=...)],
    "product": [
        changed(product=p) for p in ("", "demo-VIRT_SENSOR", "DEMO-VIRT", "../../X", "DEMO-VIRT_SENSOR\n", 5, None)
    ],
    "version": [changed(version=v) for v in ("", "1.2", "1.2.3-rc", "1.2.99999", 1, None)],
    "compatible": [changed(compatible=c) for c in ([], ["virt", "virt"], ["Virt"], ["../x"], "virt", [1], ["b"] * 17)],
    "min_version": [changed(min_version="9.0.0"), changed(min_version=1), changed(min_version=...)],
    "boot_floor": [changed(boot_floor="1.2.4"), changed(boot_floor=...)],
    "allow_downgrade_to": [changed(allow_downgrade_to="1.2.4"), changed(allow_downgrade_to=...)],
    "notes": [changed(notes=None), changed(notes="x" * 16385), changed(notes=...)],
    "items": [
        changed(items=[]),
        changed(items={}),
        changed(items=[ROOTFS.to_json()] * 2),
        changed(items=[ROOTFS.to_json(), {**ROOTFS.to_json(), "name": "second"}]),
        changed(items=[FILE.to_json(), {**FILE.to_json(), "name": "second"}]),
        changed(items=[FILE.to_json(), {**KERNEL.to_json(), "root_hash": FILE.root_hash}]),
        changed(items=[{**FILE.to_json(), "name": f"n{n}", "path": f"p{n}"} for n in range(MAX_ITEMS + 1)]),
    ],
    "items.1": [changed(items=[KERNEL.to_json(), 5])],
    "items.1.type": [changed_item(type="bootloader"), changed_item(type=...)],
    "items.1.name": [changed_item(name=n) for n in ("", "../x", ".hidden", "a/b", "x" * 65, 5)],
    "items.1.size": [changed_item(size=s) for s in (-1, "5", True, 2**32 + 1, 10**30)],
    "items.1.root_hash": [changed_item(root_hash=h) for h in ("", "0" * 63, "G" * 64, "A" * 64, None)],
    "items.1.path": [changed_item(path="etc/x")],
    "items.1.entry": [changed_item(entry="bin/x")],
    "items.1.elf": [changed_item(elf=ELF.to_json())],
    "items.1.extra": [changed_item(extra=1)],
    "items.2.version": [changed_item(2, version="1")],
    "items.2.entry": [changed_item(2, entry=e) for e in ("/bin/x", "../x", "a/../b", "a//b", ".", "")],
    "items.2.kind": [changed_item(2, kind="two words")],
    "items.2.elf": [changed_item(2, elf=[])],
    "items.2.elf.relro": [changed_item(2, elf={**ELF.to_json(), "relro": "some"})],
    "items.2.elf.nx": [changed_item(2, elf={**ELF.to_json(), "nx": 1})],
    "items.2.elf.build_id": [changed_item(2, elf={**ELF.to_json(), "build_id": "xyz"})],
    "items.2.elf.needed": [
        changed_item(2, elf={**ELF.to_json(), "needed": n}) for n in (["../x.so"], ["a"] * 129, "a")
    ],
    "items.2.elf.more": [changed_item(2, elf={**ELF.to_json(), "more": 1})],
    "items.3.path": [changed_item(3, path=...), changed_item(3, path="../etc/shadow"), changed_item(3, path="x" * 201)],
    "boot_floor ": [{**CHANGES.to_json(), "boot_floor": "1.0.0"}],
    "remove": [
        changed(remove=5),
        changed(remove=[{"type": "app", "name": f"n{n}"} for n in range(MAX_REMOVALS + 1)]),
        changed(remove=[{"type": "app", "name": "old"}] * 2),
        changed(remove=[{"type": "app", "name": APP.name}]),
        changed(remove=[{"type": "file", "name": FILE.name}]),
    ],
    "remove.0": [changed(remove=["old"])],
    "remove.0.type": [changed(remove=[{"type": t, "name": "x"}]) for t in ("kernel", "rootfs", "thing", 1)],
    "remove.0.name": [changed(remove=[{"type": "app", "name": n}]) for n in ("", "a/b", "../x", 5)],
    "remove.0.path": [changed(remove=[{"type": "app", "name": "x", "path": "y"}])],
    "surprise": [changed(surprise=1)],
}


@pytest.mark.parametrize(
    ("field", "document"), [(field, document) for field, documents in BAD.items() for document in documents]
)
def test_every_broken_rule_is_refused_and_named(field, document):
    with pytest.raises(ManifestError) as caught:
        parse_manifest(canonical_json(document))
    assert caught.value.field == field.strip()
    assert "build the bundle again" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 40_000,
        b'{"format":1.0}',
        b'{"format":NaN}',
        b'{"format":-Infinity}',
        b'{"format":' + b"1" * 200_000 + b"}",
        b" " + WHOLE.to_bytes(),
        WHOLE.to_bytes() + b"\n",
        b"\xef\xbb\xbf" + WHOLE.to_bytes(),
        WHOLE.to_bytes().replace(b'"format":1', b'"format":1,"format":1'),
        WHOLE.to_bytes().replace("ö".encode(), b"\\u00f6"),
        WHOLE.to_bytes().replace("ö".encode(), b"\\ud800"),
        json.dumps(WHOLE.to_json()).encode(),
        b"x" * (MAX_MANIFEST_BYTES + 1),
    ],
)
def test_other_ways_to_write_are_refused(data):
    with pytest.raises(ManifestError):
        parse_manifest(data)


def test_a_manifest_cut_anywhere_is_refused():
    data = WHOLE.to_bytes()
    for length in range(len(data)):
        with pytest.raises(ManifestError):
            parse_manifest(data[:length])


@given(st.integers(0, len(WHOLE.to_bytes()) * 8 - 1))
def test_a_flipped_bit_is_refused_or_means_another_manifest(bit):
    data = bytearray(WHOLE.to_bytes())
    data[bit // 8] ^= 1 << bit % 8
    try:
        parsed = parse_manifest(bytes(data))
    except ManifestError:
        return
    assert parsed != WHOLE
    assert parsed.to_bytes() == data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_rubbish_raises_nothing_else(data):
    with pytest.raises(ManifestError):
        parse_manifest(data)


@given(st.sampled_from(sorted(WHOLE.to_json())), json_values, st.integers(0, 3), st.sampled_from(sorted(APP.to_json())))
def test_any_value_anywhere_raises_nothing_else(member, value, index, item_member):
    for document in (changed(**{member: value}), changed_item(index, **{item_member: value})):
        data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        try:
            parsed = parse_manifest(data.encode("utf-8", "surrogatepass"))
        except ManifestError:
            continue
        assert parsed.to_bytes() == data.encode()


def test_an_instance_is_checked_too():
    with pytest.raises(ManifestError, match="product code"):
        manifest(product="x")
    with pytest.raises(ManifestError, match="UTF-8"):
        manifest(notes="\ud800")


def test_a_manifest_has_a_largest_size():
    needed = tuple("l" * 120 for _ in range(120))
    items = [replace(APP, name=f"a{n}", elf=replace(ELF, needed=needed)) for n in range(20)]
    with pytest.raises(ManifestError, match="limit is 262144"):
        Manifest(WHOLE.product, WHOLE.version, WHOLE.compatible, tuple(items))


@pytest.mark.parametrize(
    ("path", "safe"), [("a/b.c", True), ("a/..", False), ("..", False), ("a\0b", False), ("~", False)]
)
def test_safe_paths(path, safe):
    assert is_safe_path(path) is safe
