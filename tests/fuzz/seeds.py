"""Seeds: inputs that the real code makes and every target accepts. `python -m tests.fuzz.seeds` writes them to the corpus."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import signed
from tests.support.cores import CoreParts, Piece, write_core
from tests.support.fleet import make_fit
from tests.unit.bundle.streams import SMALL_STREAM, delta
from zentrid.bundle.encode import encode_full
from zentrid.bundle.manifest import ElfFacts, Item, Manifest
from zentrid.bundle.tree import BLOCK_BYTES, HashTree
from zentrid.bundle.zbfile import write_bundle
from zentrid.core import bootstate
from zentrid.core.bootstate import BootState, Fault
from zentrid.core.files import FLAG_ESSENTIAL, FileMeta
from zentrid.core.framing import Code, encode_answer, encode_log
from zentrid.core.probes import Failed, Found, Lost, Reply, to_line
from zentrid.core.version import Version
from zentrid.core.webrequest import Head
from zentrid.debug.corefile import Mapping, Registers
from zentrid.update import protocol
from zentrid.update.errors import DmsRefusedError, PayloadError

CORPUS = Path(__file__).parent / "corpus"


def _payload(blocks: int) -> bytes:
    return b"".join(bytes([number % 5]) * BLOCK_BYTES for number in range(blocks))


def _stream(payload: bytes) -> bytes:
    out = io.BytesIO()
    encode_full(io.BytesIO(payload), out, level=1)
    return out.getvalue()


def _root(payload: bytes) -> str:
    return HashTree.from_reader(io.BytesIO(payload)).root.hex()


def _manifests() -> Iterator[Manifest]:
    elf = ElfFacts("AARCH64", ("libc.so.6",), "ab12", pie=True, relro="full", nx=True)
    slots = tuple(Item(kind, kind, 4096, _root(_payload(1))) for kind in ("kernel", "rootfs"))
    others = (
        Item("app", "arm", 10, "1" * 64, Version(0, 1, 0), entry="bin/arm", kind="tar", elf=elf),
        Item("file", "page", 0, "2" * 64, path="web/index.html", kind="data"),
    )
    yield Manifest(signed.PRODUCT, Version(1, 2, 3), ("virt",), slots)
    yield Manifest(
        signed.PRODUCT, Version(2, 0, 0), ("virt", "other-1"), (*slots, *others), min_version=Version(1, 0, 0),
        boot_floor=Version(1, 0, 0), allow_downgrade_to=Version(0, 9, 0), notes="Größer und schöner\n",
    )  # fmt: skip


def _bundles() -> Iterator[bytes]:
    payload = _payload(1)
    item = Item("kernel", "kernel", len(payload), _root(payload))
    manifest = Manifest(signed.PRODUCT, Version(1, 1, 0), ("virt",), (item,)).to_bytes()
    _, files = signed.genuine()
    chain = {"1.root.json": files[0], "targets.json": files[1], f"{signed.PRODUCT}.json": files[2]}
    for metadata in ({}, chain, dict.fromkeys(chain, b"{}")):
        out = io.BytesIO()
        write_bundle(out, manifest, metadata, {item.root_hash: io.BytesIO(_stream(payload))})
        yield out.getvalue()


def _boot_states() -> Iterator[bytes]:
    fault = Fault("application", "a", "1.0.0", 12, "2026-01-01T00:00:00Z", "it ended with signal 11")
    yield bootstate.encode(BootState(seq=1))
    yield bootstate.encode(
        BootState(
            seq=77, order=("b", "a"), a_left=0, b_good=True, running=True, last="b", faults=8,
            fault_records=(fault,) * 8, cold_boots=2, safemode=True, factory_reset=2, floor=Version(1, 2, 3),
            boot_floor=Version(1, 0, 0),
        )
    )  # fmt: skip


def _worker_lines() -> Iterator[bytes]:
    yield protocol.progress_line(protocol.Progress("downloading", 50, 1000))
    yield protocol.delivered_line("id-1")
    yield protocol.refused_line("id-1", DmsRefusedError(400, "bad report"))
    yield protocol.answer_line({"manifest": "{}", "target": "x"})


def _addresses() -> Iterator[bytes]:
    yield b"http://192.168.1.5:8000/new.zb"
    yield b"https://me:p%40ss@files.example.com:8443/r/new.zb?key=1&x=%20#top"
    yield b"http://[::1]/"


KERNEL_WORDS = """Panic#1 Part1
<4>[   12.345678] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000
<4>[   12.345679] pc : zentri_probe+0x10/0x20 [probe]
<4>[   12.345680] Call trace:
<4>[   12.345681]  zentri_probe+0x10/0x20
<0>[   12.345682] Kernel panic - not syncing: Oops: Fatal exception
"""


HTTP_REQUESTS = (
    b'/command/get%20sy%20u\n10.0.2.15:80\n{"command": "dmVyc2lvbg==", "flags": 7, "data": "AAH/"}',
    b'/command/set a?b\nBasic YWRtaW46Z2VoZWlt\n{"command": "file_create a 3", "data": "abc"}',
    b'/command/ver\nhttp://evil.example/\n{"command": "ver ", "flags": 0}',
)
WEB_APP_LIST = json.dumps({"files": {"js/app.js": {"size": 5, "sha256": "0" * 64}, "index.html": {"size": 0}}}).encode()


def _core() -> bytes:
    stack = b"".join(number.to_bytes(8, "little") for number in (0x7010, 0x400100, 0, 0x400200))
    program = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 183, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0
    )
    program += struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0, 0x1000, 0x1000, 0x1000)
    program += struct.pack("<IIQQQQQQ", 4, 4, 176, 0, 0, 36, 36, 4)
    program += struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(range(20))
    core = write_core(
        CoreParts(
            Registers(pc=0x400010, lr=0x400080, sp=0x7000, fp=0x7000),
            [Piece(0x7000, stack, 6), Piece(0x400000, b"", 5, 0x1000)],
            [Mapping(0x400000, 0x401000, 0, "/usr/bin/sample-arm")],
        )
    )
    return len(core).to_bytes(4, "big") + core + program


def seeds(target: str) -> list[bytes]:
    """Return what the target accepts."""
    tree = HashTree.from_reader(io.BytesIO(_payload(3)))
    made: dict[str, Iterator[bytes]] = {
        "manifest": (manifest.to_bytes() for manifest in _manifests()),
        "patch": iter([*(_stream(_payload(blocks)) for blocks in (1, 3, 7)), SMALL_STREAM, delta()[0]]),
        "bundle": _bundles(),
        "boot_state": _boot_states(),
        "fit": iter([make_fit(Version(1, 2, 3), tree, b"kernel")]),
        "signed_metadata": signed.seeds(),
        "command_line": iter([b'ota -u "a b"', b"set system.name \\x41\\ b", b'"\\"\\\\" c']),
        "frames": iter([encode_answer(Code.SUCCESS, "yes\n", safe_mode=True) + encode_log("one\ntwo")]),
        "web_address": _addresses(),
        "worker_line": _worker_lines(),
        "probe_line": (
            to_line(news) for news in (Found("10.0.2.2"), Found("fe80::1%eth0"), Reply(1.25), Lost(), Failed("No."))
        ),
        "core_file": iter([_core()]),
        "kernel_log": iter([KERNEL_WORDS.encode()]),
        "web_head": iter([Head(200, 10).to_line(), Head(404).to_line(), Head(error="cannot reach it").to_line()]),
        "file_meta": iter([FileMeta("2.0.1", 0x45, FLAG_ESSENTIAL, 0x6F91).to_bytes(), b"webapp/css/a+b_c.css"]),
        "http_request": iter(HTTP_REQUESTS),
        "web_app_list": iter([WEB_APP_LIST]),
    }
    return list(made[target])


def refused_seeds(target: str) -> list[bytes]:
    """Return what is well made and still refused, to begin from as well."""
    return [protocol.failure_line(PayloadError("it is damaged"))] if target == "worker_line" else []


def name_of(data: bytes) -> str:
    """Return the file name of an input."""
    return hashlib.sha256(data).hexdigest()[:16]


def dictionary(target: str) -> list[bytes]:
    """Return words that the fuzzer should know."""
    if target in ("manifest", "signed_metadata", "worker_line", "bundle"):
        texts = [text for seed in seeds(target) for text in _words(seed)]
        return sorted(set(texts))[:200]
    if target == "boot_state":
        return [entry for entry in seeds(target)[1][4:].split(b"\0") if entry]
    return []


def _words(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    start = data.find(b"{")
    while start >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(data[start:].decode("utf-8", "replace"))
        except ValueError:
            break
        found += [f'"{key}"'.encode() for key in _keys(value)]
        start = data.find(b"{", start + end)
    return found


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key[:60]
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def main() -> None:
    """Write the seeds of every target to the corpus; what lies there already stays."""
    from tests.fuzz.targets import TARGETS

    for target in TARGETS:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for data in (*seeds(target), *refused_seeds(target)):
            (folder / name_of(data)).write_bytes(data)


if __name__ == "__main__":
    main()
