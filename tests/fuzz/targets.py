"""What is fuzzed: for each parser of foreign bytes a function that takes any bytes and asserts what always holds.

It returns whether the input was accepted in full, so that tests can tell a seed that still reaches the depths from one
that a change of the format has left behind. It needs no fuzzer.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from tests.fuzz.signed import signed_metadata
from tests.unit.bundle.streams import BASE
from zentrid.bundle.layout import MAX_DICTIONARY_BLOCKS
from zentrid.bundle.manifest import ManifestError, parse_manifest
from zentrid.bundle.patch import (
    PatchError,
    PatchHeader,
    decode_frame,
    missing_blocks,
    unpack_full,
    vanished_blocks,
    window_places,
)
from zentrid.bundle.tree import BLOCK_BYTES, HashTree
from zentrid.bundle.zbfile import BundleError, BundleReader, write_bundle
from zentrid.core import bootstate
from zentrid.core.account import basic_credentials
from zentrid.core.bootstate import BootStateLostError, CorruptCopyError
from zentrid.core.files import FileMeta, check_name, parse_meta
from zentrid.core.fit import read_configuration
from zentrid.core.framing import HEADER_BYTES, MAX_BODY_BYTES, Code, Frame, FrameError, FrameReader, encode_answer
from zentrid.core.grammar import CommandError, quote, split_words
from zentrid.core.httpaccess import connected_networks, is_near, is_own_name, refused_page
from zentrid.core.httpapi import BadRequestError, answer_json, request_from_body, request_from_target
from zentrid.core.names import BOOTSTATE_COPY_BYTES, SAFE_SLOT, SLOTS
from zentrid.core.postmortem import Finding, Words, examine
from zentrid.core.probes import MAX_LINE_BYTES, Failed, ProbeError, parse_news, to_line
from zentrid.core.webapp import WebAppListError, parse_list
from zentrid.core.webrequest import parse_head
from zentrid.core.weburl import UrlError, parse_url
from zentrid.debug.backtrace import backtrace
from zentrid.debug.corefile import BadCoreError, read_core
from zentrid.update.errors import UpdateError
from zentrid.update.protocol import parse_line

MAX_FIT_READS: Final = 20_000
MAX_PATCH_BLOCKS: Final = 2000
"""Of a payload that a fuzzed stream may claim; the limits themselves have tests of their own."""


def manifest(data: bytes) -> bool:
    """A manifest is refused, or its one way to be written is what was read."""
    try:
        parsed = parse_manifest(data)
    except ManifestError:
        return False
    assert parsed.to_bytes() == data
    assert parse_manifest(parsed.to_bytes()) == parsed
    return True


def patch(data: bytes) -> bool:
    """A patch stream is refused, or every part of it lies inside it and gives blocks that fit its tree."""
    try:
        header = PatchHeader.parse(data)
    except PatchError:
        return False
    assert header.leaf_offset + header.leaf_bytes <= header.stream_bytes
    assert sum(frame.blocks for frame in header.frames) == header.missing
    assert all(frame.offset + frame.compressed_bytes <= header.stream_bytes for frame in header.frames)
    if header.target_blocks > MAX_PATCH_BLOCKS:
        return False
    try:
        return _full_patch(data, header) if header.from_nothing else _delta_patch(data, header)
    except PatchError:
        return False


def _full_patch(data: bytes, header: PatchHeader) -> bool:
    written: dict[int, bytes] = {}
    size_bytes = header.target_blocks * BLOCK_BYTES
    unpack_full(io.BytesIO(data), header.target_root, size_bytes, written.__setitem__)
    assert sorted(written) == list(range(0, size_bytes, BLOCK_BYTES))
    assert HashTree.from_reader(io.BytesIO(b"".join(written[at] for at in sorted(written)))).root == header.target_root
    return True


def _delta_patch(data: bytes, header: PatchHeader) -> bool:
    """As a device applies it, from the one base that the seeds are made from."""
    base = HashTree.from_reader(io.BytesIO(BASE))
    tree = header.decode_leaves(data[header.leaf_offset : header.leaf_offset + header.leaf_bytes], base)
    assert (tree.root, tree.n_blocks) == (header.target_root, header.target_blocks)
    missing, vanished = missing_blocks(tree, base), vanished_blocks(tree, base)
    made: dict[int, bytes] = {}
    for number, frame in enumerate(header.frames):
        places = window_places(header, number, missing, vanished)
        assert len(places) <= MAX_DICTIONARY_BLOCKS
        assert all(place.in_base or place.index in made for place in places), "a window of what is not there yet"
        parts = [
            BASE[place.index * BLOCK_BYTES :][:BLOCK_BYTES] if place.in_base else made[place.index] for place in places
        ]
        packed = data[frame.offset : frame.offset + frame.compressed_bytes]
        blocks = decode_frame(header, number, packed, b"".join(parts))
        made |= dict(zip(missing[frame.first : frame.first + frame.blocks], blocks, strict=True))
    return all(tree.verify_block(index, block) for index, block in made.items())


def bundle(data: bytes) -> bool:
    """A bundle file is refused, or writing its parts again gives the same file."""
    try:
        reader = BundleReader(io.BytesIO(data))
        payloads = {member.name[8:-4]: io.BytesIO(stream.read()) for member, stream in reader.payloads()}
    except BundleError:
        return False
    out = io.BytesIO()
    write_bundle(out, reader.head.manifest_bytes, reader.head.metadata, payloads)
    assert out.getvalue() == data
    return True


def boot_state(data: bytes) -> bool:
    """A copy of the boot state is refused, or what it says can be written and read again without a change."""
    try:
        state = bootstate.decode(data)
    except CorruptCopyError:
        return False
    written = bootstate.encode(state)
    assert len(written) == BOOTSTATE_COPY_BYTES
    again = bootstate.decode(written)
    assert bootstate.encode(again) == written
    assert not again.notes
    other = bootstate.encode(bootstate.BootState(seq=5))
    for pair in ((data, other), (other, data)):
        best, number = bootstate.newest(*pair)
        assert bootstate.encode(best) == bootstate.encode(bootstate.decode(pair[number]))
    try:
        bootstate.newest(data, data)
    except BootStateLostError:
        return False
    return True


def fit(data: bytes) -> bool:
    """A kernel image gives a configuration or none, after a bounded number of reads."""
    reads = 0

    def read_at(offset: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        assert offset >= 0
        assert 0 <= size <= 8192
        return data[offset : offset + size]

    found = [read_configuration(read_at, slot) for slot in (*SLOTS, SAFE_SLOT)]
    assert reads <= MAX_FIT_READS
    return any(one is not None and one.verity is not None for one in found)


def command_line(data: bytes) -> bool:
    """A line is refused with a code, or each of its words survives being quoted."""
    try:
        words = split_words(data.decode("utf-8", "surrogateescape"))
    except CommandError as error:
        assert error.code in (Code.PARSE_ERROR, Code.BUFFER_OVERFLOW)  # noqa: PT017 - an invariant, no expectation
        return False
    for word in words:
        if len(quote(word).encode()) <= 2048:
            assert split_words(quote(word)) == [word]
    return bool(words)


def frames(data: bytes) -> bool:
    """Machine mode gives the same blocks however the bytes are cut, and a whole answer for every text."""
    whole, parts = _blocks(data, len(data) or 1), _blocks(data, 7)
    assert whole is None or parts == whole
    assert (whole is None) == (parts is None)
    text = data.decode("utf-8", "surrogateescape")
    answer = encode_answer(Code.SUCCESS, text, safe_mode=False)
    assert len(answer) <= HEADER_BYTES + MAX_BODY_BYTES
    (frame,) = FrameReader().feed(answer)
    assert not frame.body or frame.body.endswith(b"\r\n")
    return bool(whole)


def _blocks(data: bytes, size: int) -> list[Frame] | None:
    """Return the blocks in a stream that arrives in pieces of this size; None: it breaks off with an error."""
    reader = FrameReader()
    try:
        return [block for start in range(0, len(data), size) for block in reader.feed(data[start : start + size])]
    except FrameError:
        return None


def web_address(data: bytes) -> bool:
    """An address is refused, or what is shown of it names the same server."""
    try:
        text = data.decode("utf-8")
        url = parse_url(text)
    except (UrlError, UnicodeDecodeError):
        return False
    shown = parse_url(str(url).replace("…", ""))
    assert shown.origin == url.origin
    assert not shown.credentials
    return True


def worker_line(data: bytes) -> bool:
    """What the worker says is understood, or is an error that a person can be told."""
    try:
        parse_line(data)
    except UpdateError as error:
        assert len(str(error)) < 10_000  # noqa: PT017
        return False
    return True


def probe_line(data: bytes) -> bool:
    """What the network probe says is refused, or can be shown on any terminal and said again."""
    try:
        news = parse_news(data)
    except ProbeError:
        return False
    line = to_line(news)
    assert len(line) <= MAX_LINE_BYTES
    assert line[:-1].decode().isprintable()
    assert isinstance(news, Failed) or parse_news(line) == news
    return True


def core_file(data: bytes) -> bool:
    """A core and the program that it names are refused, or give a bounded backtrace; read as root when a program dies."""
    size = int.from_bytes(data[:4], "big")
    try:
        core = read_core(io.BytesIO(data[4 : 4 + size]))
    except BadCoreError:
        return False

    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        with os.fdopen(os.memfd_create("module"), "w+b") as file:
            file.write(data[4 + size :])
            file.seek(0)
            yield file

    frames = backtrace(core, lambda _path: opened())
    assert 1 <= len(frames) <= 32
    assert all(frame.module.isprintable() and 0 <= frame.address < 1 << 64 for frame in frames)
    return True


def kernel_log(data: bytes) -> bool:
    """What the kernel said before a reset gives findings that can be told, whatever it is."""
    text = data.decode("latin-1")
    found: list[Finding] = []
    for name in ("dmesg-ramoops-0", "console-ramoops-0"):
        found += examine([Words(name, text)], warm=True)
    for one in found:
        assert one.detail.isprintable()
        assert len(one.detail) < 2000
    return bool(found)


def web_head(data: bytes) -> bool:
    """What the process that asks web servers says is refused, or is a status or a sentence that can be shown."""
    try:
        head = parse_head(data)
    except ValueError:
        return False
    assert head.status or head.error
    assert head.error.isprintable()
    assert parse_head(head.to_line()) == head
    return True


def file_meta(data: bytes) -> bool:
    """What is stored with a file is understood, or forgotten; a name leads nowhere else."""
    meta = parse_meta(data)
    assert parse_meta(meta.to_bytes()) == meta
    try:
        name = check_name(data.decode("utf-8", "surrogateescape"))
    except CommandError:
        return meta != FileMeta()
    assert Path("/top", name).resolve() == Path("/top") / name != Path("/top")
    return True


def http_request(data: bytes) -> bool:
    """A request by HTTP is judged without an error, and is no command or exactly one line; its answer can be sent."""
    target, _, rest = data.partition(b"\n")
    header, _, body = rest.partition(b"\n")
    text = header.decode("latin-1")
    is_own_name(text, ("a.example",))
    is_near(text, connected_networks(text, text))
    basic_credentials(text)
    for name in ("Host", "Origin", "Referer"):
        refused_page({"User-Agent": "Mozilla/5.0", name: text}, secure=False)
    wanted = [request_from_target(target.decode("latin-1"))]
    with suppress(BadRequestError):
        wanted.append(request_from_body(body))
    lines = 0
    for request in wanted:
        answer = json.loads(json.dumps(answer_json(1, 0, request.flags, request.data, [text])))
        coded = base64.b64decode(answer["response"]) if answer["flags"] & 2 else answer["response"].encode()
        assert coded == request.data
        try:
            request.check()
        except CommandError:
            continue
        assert b"\n" not in request.line
        assert b"\r" not in request.line
        lines += 1
    return lines == 2


def web_app_list(data: bytes) -> bool:
    """A Web App's list of files is refused, or names files that lie below its folder."""
    try:
        listed = parse_list(data).files
    except WebAppListError:
        return False
    for name, entry in listed.items():
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert entry.size_bytes >= 0
    return True


TARGETS: Final[dict[str, Callable[[bytes], bool]]] = {
    "manifest": manifest,
    "patch": patch,
    "bundle": bundle,
    "boot_state": boot_state,
    "fit": fit,
    "signed_metadata": signed_metadata,
    "command_line": command_line,
    "frames": frames,
    "web_address": web_address,
    "worker_line": worker_line,
    "probe_line": probe_line,
    "core_file": core_file,
    "kernel_log": kernel_log,
    "web_head": web_head,
    "file_meta": file_meta,
    "http_request": http_request,
    "web_app_list": web_app_list,
}
