"""Bundle files: order, names and sizes are what they must be, or a BundleError says which is not."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bundle.making import PRODUCT, full, item, manifest, noise
from zentrid.bundle.manifest import MAX_MANIFEST_BYTES
from zentrid.bundle.zbfile import MAX_METADATA_BYTES, BundleError, BundleReader, open_bundle, write_bundle

ROOTFS, KERNEL = noise(9000), b"kernel" * 1000
ITEMS = (item(KERNEL, "kernel"), item(ROOTFS))
STREAMS = {ITEMS[0].root_hash: full(KERNEL)[1], ITEMS[1].root_hash: full(ROOTFS)[1]}
MANIFEST = manifest(*ITEMS)
CHAIN = {f"{PRODUCT}.json": b"{p}", "10.root.json": b"{10}", "2.root.json": b"{2}", "targets.json": b"{t}"}
NAMES = [
    "manifest.json",
    "metadata/2.root.json",
    "metadata/10.root.json",
    "metadata/targets.json",
    f"metadata/{PRODUCT}.json",
    f"payload/{ITEMS[0].root_hash}.zps",
    f"payload/{ITEMS[1].root_hash}.zps",
]


def written(metadata=None, manifest_bytes=None, streams=None) -> bytes:
    out = io.BytesIO()
    payloads = {name: io.BytesIO(data) for name, data in (STREAMS if streams is None else streams).items()}
    write_bundle(out, manifest_bytes or MANIFEST.to_bytes(), CHAIN if metadata is None else metadata, payloads)
    return out.getvalue()


WHOLE = written()


def members() -> list[tuple[str, bytes]]:
    """Return the members of WHOLE, to be put together wrongly."""
    contents = [MANIFEST.to_bytes(), b"{2}", b"{10}", b"{t}", b"{p}", *(STREAMS[entry.root_hash] for entry in ITEMS)]
    return list(zip(NAMES, contents, strict=True))


def tarred(parts, kind=tarfile.REGTYPE, **fields) -> bytes:
    """Return a tar of these members as a stranger might make it."""
    out = io.BytesIO()
    for name, content in parts:
        info = tarfile.TarInfo(name)
        info.size, info.type = len(content), kind
        for field, value in fields.items():
            setattr(info, field, value)
        out.write(info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
    return out.getvalue() + bytes(1024)


def read_all(data: bytes) -> dict[str, bytes]:
    reader = BundleReader(io.BytesIO(data))
    return {member.name: stream.read() for member, stream in reader.payloads()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.zb"


def test_a_bundle_on_disk(path):
    path.write_bytes(WHOLE)
    bundle = open_bundle(path)
    assert bundle.manifest == MANIFEST
    assert bundle.manifest_bytes == MANIFEST.to_bytes()
    assert bundle.metadata == CHAIN
    assert bundle.head.signed
    assert set(bundle.members) == set(STREAMS)
    for root_hash, data in STREAMS.items():
        with bundle.open_payload(root_hash) as stream:
            assert stream.read(10) + stream.read() == data
            assert stream.read() == stream.read(5) == b""


def test_any_tar_program_lists_it():
    with tarfile.open(fileobj=io.BytesIO(WHOLE), mode="r:") as archive:
        assert archive.getnames() == NAMES
        assert {member.mtime for member in archive} == {0}


def test_it_is_what_a_tar_library_writes():
    assert tarred(members()) == WHOLE


def test_a_bundle_may_be_unsigned(path):
    path.write_bytes(written(metadata={}))
    assert not open_bundle(path).head.signed


def test_the_same_members_give_the_same_bytes():
    assert written(metadata=dict(reversed(CHAIN.items()))) == WHOLE


def test_reading_forward_only_gives_the_same():
    class OneWay:
        def __init__(self):
            self.data = io.BytesIO(WHOLE)

        def read(self, size, /):
            return self.data.read(min(size, 1000))

    reader = BundleReader(OneWay())
    found = {}
    for member, stream in reader.payloads():
        parts = []
        while part := stream.read(700):
            parts.append(part)
        found[member.name] = b"".join(parts)
    assert found == dict(members()[-2:])
    assert reader.offset == len(WHOLE)


def test_payloads_that_nobody_reads_are_passed_over(path):
    reader = BundleReader(io.BytesIO(WHOLE))
    assert [stream.read(100) for _, stream in reader.payloads()] == [data[:100] for data in STREAMS.values()]


def test_payloads_can_be_taken_over_from_another_bundle(path):
    path.write_bytes(WHOLE)
    bundle = open_bundle(path)
    out = io.BytesIO()
    with bundle.open_payload(ITEMS[0].root_hash) as kernel, bundle.open_payload(ITEMS[1].root_hash) as rootfs:
        payloads = {ITEMS[0].root_hash: kernel, ITEMS[1].root_hash: rootfs}
        write_bundle(out, bundle.manifest_bytes, {}, payloads)
    assert out.getvalue() == written(metadata={})


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_bundle_cut_anywhere_is_refused(path):
    for length in [*range(0, len(WHOLE), 128), *range(len(WHOLE) - 1030, len(WHOLE), 7), *range(0, 1000, 3)]:
        with pytest.raises(BundleError):
            read_all(WHOLE[:length])
        path.write_bytes(WHOLE[:length])
        with pytest.raises(BundleError):
            open_bundle(path)


HEAD = members()[:1]
BAD = {
    "nothing": b"",
    "empty tar": bytes(1024),
    "no tar": b"PK\3\4" * 300,
    "gzip": b"\x1f\x8b" + WHOLE,
    "more after the end": WHOLE + b"\0",
    "no manifest": tarred(members()[1:]),
    "another first": tarred(members()[1:2] + members()[:1] + members()[2:]),
    "manifest is rubbish": tarred([("manifest.json", b"{}"), *members()[1:]]),
    "manifest too long": tarred([("manifest.json", b" " * (MAX_MANIFEST_BYTES + 1)), *members()[1:]]),
    "metadata too long": tarred([*HEAD, ("metadata/2.root.json", b" " * (MAX_METADATA_BYTES + 1)), *members()[2:]]),
    "no root": tarred(HEAD + members()[3:]),
    "no targets": tarred(members()[:3] + members()[4:]),
    "no product file": tarred(members()[:4] + members()[5:]),
    "roots out of order": tarred([*HEAD, members()[2], members()[1], *members()[3:]]),
    "a root twice": tarred(members()[:2] + members()[1:]),
    "another product's file": tarred([*members()[:5], ("metadata/DEMO-VIRT_OTHER.json", b"{}"), *members()[5:]]),
    "traversal in metadata": tarred([*HEAD, ("metadata/../../etc/passwd", b"x"), *members()[1:]]),
    "traversal": tarred([*members()[:5], ("../../etc/passwd", b"x"), *members()[5:]]),
    "a name that is not ASCII": b"\xed" + WHOLE[1:],
    "no name": tarred([("", b"")]),
    "absolute name": tarred([("/manifest.json", MANIFEST.to_bytes()), *members()[1:]]),
    "dotted name": tarred([("./manifest.json", MANIFEST.to_bytes()), *members()[1:]]),
    "payloads swapped": tarred([*members()[:5], members()[6], members()[5]]),
    "a payload missing": tarred(members()[:6]),
    "a payload twice": tarred([*members(), members()[6]]),
    "a payload unasked for": tarred([*members(), (f"payload/{'0' * 64}.zps", b"x")]),
    "an empty payload": tarred([*members()[:6], (members()[6][0], b"")]),
    "metadata after payloads": tarred([*members(), ("metadata/11.root.json", b"{}")]),
    "symbolic links": tarred(members(), kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard links": tarred(members(), kind=tarfile.LNKTYPE, linkname="x"),
    "folders": tarred(members(), kind=tarfile.DIRTYPE),
    "devices": tarred(members(), kind=tarfile.CHRTYPE),
    "pax headers": tarred(members(), kind=tarfile.XHDTYPE),
    "sparse": tarred(members(), kind=tarfile.GNUTYPE_SPARSE),
    "an owner": tarred(members(), uid=1000),
    "a time": tarred(members(), mtime=1),
    "a mode": tarred(members(), mode=0o4755),
    "only one end block": tarred(members())[:-512],
    "filling that is not zero": WHOLE[: 512 + len(MANIFEST.to_bytes())]
    + b"x"
    + WHOLE[512 + len(MANIFEST.to_bytes()) + 1 :],
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_a_bundle_that_is_not_as_it_must_be_is_refused(data, path):
    with pytest.raises(BundleError) as caught:
        read_all(data)
    assert "bundle file" in str(caught.value)
    path.write_bytes(data)
    with pytest.raises(BundleError):
        open_bundle(path)


def test_a_huge_size_in_a_header_costs_nothing(path):
    name, _ = members()[5]
    info = tarfile.TarInfo(name)
    info.size = 7 << 30
    data = tarred(members()[:5])[:-1024] + info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
    with pytest.raises(BundleError, match="limit"):
        open_bundle(path)


@settings(max_examples=300)
@given(st.integers(0, len(WHOLE) * 8 - 1))
def test_a_flipped_bit_outside_payloads_and_metadata_is_refused(bit):
    data = bytearray(WHOLE)
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = read_all(bytes(data))
    except BundleError:
        return
    assert bytes(data) != WHOLE
    # What got through is content, which signatures and hashes protect.
    clean = {name: len(content) for name, content in found.items()}
    assert clean == {name: len(content) for name, content in members()[5:]}


@given(st.binary(max_size=3000))
def test_rubbish_raises_nothing_else(data):
    with pytest.raises(BundleError):
        read_all(data)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"metadata": {"targets.json": b"{}"}}, "lacks"),
        ({"metadata": {**CHAIN, "x.json": b"{}"}}, "does not belong"),
        ({"metadata": {**CHAIN, "targets.json": b" " * (MAX_METADATA_BYTES + 1)}}, "larger"),
        ({"streams": {}}, "payloads"),
        ({"streams": {**STREAMS, "0" * 64: b"x"}}, "payloads"),
        ({"streams": dict.fromkeys(STREAMS, b"")}, "0 bytes long"),
    ],
)
def test_what_does_not_fit_together_is_not_written(arguments, problem):
    with pytest.raises(BundleError, match=problem):
        written(**arguments)
