"""Reading cores: what is kept, what is read past, and what a hostile one cannot do."""

import io
import struct
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.cores import EXECUTE, PAGE, READ, CoreParts, Piece, write_core
from zentrid.debug import corefile
from zentrid.debug.backtrace import MAX_FRAMES, MAX_MODULE_CHARS, NO_FILE, backtrace
from zentrid.debug.corefile import BadCoreError, Mapping, Registers, read_core

CODE = 0x400000
STACK = 0x7FFF0000
RETURNS = (CODE + 0x100, CODE + 0x200, CODE + 0x300)


def chain(*records: tuple[int, int]) -> bytes:
    """Return a stack page whose first words are pairs of pointer and return address."""
    return b"".join(struct.pack("<QQ", *record) for record in records).ljust(PAGE, b"\0")


def plain(**changes: object) -> CoreParts:
    """Return a program that was called three deep, in a file that is no longer there."""
    values: dict[str, object] = {
        "registers": Registers(pc=CODE + 0x40, lr=RETURNS[0], fp=STACK, sp=STACK),
        "pieces": [
            Piece(CODE, flags=READ | EXECUTE, size=PAGE),
            Piece(
                STACK, chain((STACK + 16, RETURNS[0]), (STACK + 32, RETURNS[1]), (0, RETURNS[2])), flags=READ, size=PAGE
            ),
        ],
        "mappings": [Mapping(CODE, CODE + PAGE, 0, "/gone/program")],
    }
    return CoreParts(**{**values, **changes})  # type: ignore[arg-type]


class Stream(io.BytesIO):
    """Gives as little at a time as a pipe may; counts what was read, pretends to go on with zeros."""

    def __init__(self, data: bytes, more_bytes: int = 0, at_once: int = 1 << 20) -> None:
        super().__init__(data)
        self.more_bytes, self.at_once, self.given = more_bytes, at_once, 0

    def read(self, size=-1, /):
        """Return at most `at_once` bytes."""
        size = min(size, self.at_once)
        data = super().read(size) or bytes(min(size, self.more_bytes))
        if self.tell() == len(self.getvalue()) and not data.strip(b"\0"):
            self.more_bytes -= len(data)
        self.given += len(data)
        return data


def addresses(parts: CoreParts) -> list[int]:
    return [frame.address for frame in backtrace(read_core(io.BytesIO(write_core(parts))))]


def test_registers_chain_and_mappings():
    core = read_core(Stream(write_core(plain()), at_once=7))
    assert core.signal == 11
    assert core.registers == plain().registers
    assert core.mappings == plain().mappings
    assert core.whole
    frames = backtrace(core)
    # The caller in lr is the first of the chain, so it stands there once; callers are shown at their call.
    assert [frame.address for frame in frames] == [0x40, 0xFC, 0x1FC, 0x2FC]
    assert {frame.module for frame in frames} == {"/gone/program"}


def test_the_caller_of_a_function_without_a_frame_is_in_lr():
    assert addresses(plain(registers=Registers(CODE + 0x40, CODE + 0x80, STACK, STACK))) == [
        0x40,
        0x7C,
        0xFC,
        0x1FC,
        0x2FC,
    ]


def test_an_lr_that_points_to_no_code_is_no_caller():
    assert addresses(plain(registers=Registers(CODE + 0x40, STACK, STACK, STACK))) == [0x40, 0xFC, 0x1FC, 0x2FC]


def test_a_jump_to_nowhere_is_told_with_its_caller():
    parts = plain(registers=Registers(0, CODE + 0x80, STACK, STACK))
    frames = backtrace(read_core(io.BytesIO(write_core(parts))))
    assert (frames[0].module, frames[0].build_id, frames[0].address) == (NO_FILE, "", 0)
    assert frames[1].address == 0x7C


def test_signed_return_addresses_lose_their_signature():
    signature = 0x2A << 48
    pieces = [plain().pieces[0], Piece(STACK, chain((0, RETURNS[0] | signature)), size=PAGE)]
    registers = Registers(CODE + 0x40, CODE + 0x80 | signature, STACK, STACK)
    assert addresses(plain(pieces=pieces, registers=registers)) == [0x40, 0x7C, 0xFC]
    signature = 0x55 << 40  # a kernel with 39-bit addresses says which bits are signature
    pieces = [plain().pieces[0], Piece(STACK, chain((0, RETURNS[0] | signature)), size=PAGE)]
    mask = struct.pack("<QQ", 0, ~((1 << 39) - 1) & (1 << 64) - 1)
    assert addresses(plain(pieces=pieces, more_notes=[(0x406, mask)])) == [0x40, 0xFC]


@pytest.mark.parametrize(
    "records",
    [
        [(STACK, RETURNS[0])],  # points to itself
        [(STACK + 16, RETURNS[0]), (STACK, RETURNS[1])],  # points back
        [(STACK + 17, RETURNS[0])],  # not aligned
        [(1 << 63, RETURNS[0])],
    ],
)
def test_a_chain_that_leads_nowhere_ends(records):
    parts = plain(pieces=[plain().pieces[0], Piece(STACK, chain(*records), size=PAGE)])
    assert 2 <= len(addresses(parts)) <= 3


def test_a_deep_recursion_gives_the_innermost_frames():
    records = [(STACK + 16 * (n + 1), RETURNS[0] + 4 * n) for n in range(200)]
    parts = plain(pieces=[plain().pieces[0], Piece(STACK, chain(*records))])
    assert addresses(parts) == [0x40, *(0xFC + 4 * n for n in range(MAX_FRAMES - 1))]


def test_a_stack_pointer_outside_the_stack_leaves_the_frame_pointer():
    """A stack that has overflowed: sp is in the guard page below."""
    parts = plain(registers=Registers(CODE + 0x40, RETURNS[0], STACK, STACK - 64))
    assert addresses(parts) == [0x40, 0xFC, 0x1FC, 0x2FC]


def test_nothing_is_read_behind_the_last_piece_that_matters():
    small = write_core(plain())
    large = Piece(STACK + (1 << 30), b"", READ, 8 << 30)
    data = write_core(plain(pieces=[*plain().pieces, large]))
    stream = Stream(data, more_bytes=8 << 30)
    assert read_core(stream).whole
    assert stream.given <= len(small) + PAGE


def test_what_is_not_needed_is_read_past_in_little_memory():
    heap = Piece(CODE + (1 << 24), bytes(48 << 20))
    data = write_core(plain(pieces=[plain().pieces[0], heap, plain().pieces[1]]))
    tracemalloc.start()
    try:
        core = read_core(Stream(data))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert len(backtrace(core)) == 4


def test_a_large_stack_is_kept_in_part():
    parts = plain(pieces=[plain().pieces[0], Piece(STACK, plain().pieces[1].data + bytes(8 << 20))])
    core = read_core(io.BytesIO(write_core(parts)))
    assert [len(data) for _, data in core.stacks] == [corefile.MAX_STACK_BYTES]
    assert len(backtrace(core)) == 4


def test_more_pieces_than_the_headers_count_can_say():
    many = [Piece((1 << 32) + n * PAGE, size=PAGE) for n in range(66_000)]
    assert addresses(plain(pieces=[*many, *plain().pieces])) == [0x40, 0xFC, 0x1FC, 0x2FC]
    with pytest.raises(BadCoreError, match="more than 70000"):
        read_core(io.BytesIO(write_core(plain(pieces=many * 2))))


def test_every_cut_gives_an_error_or_what_there_is():
    data = write_core(plain())
    whole = 0
    for size in range(len(data)):
        try:
            core = read_core(io.BytesIO(data[:size]))
        except BadCoreError:
            continue
        assert not core.whole
        assert backtrace(core)[0].address in (0x40, CODE + 0x40)
        whole += 1
    assert whole > PAGE, "cut in the memory: the registers are there"


@pytest.mark.parametrize(
    ("at", "value"), [(4, b"\x01"), (5, b"\x02"), (16, b"\x02"), (18, b"\x3e"), (54, b"\0"), (64, b"\x01")]
)
def test_what_is_no_core_of_the_board_is_refused(at, value):
    data = write_core(plain())
    with pytest.raises(BadCoreError):
        read_core(io.BytesIO(data[:at] + value + data[at + 1 :]))


DAMAGE = st.lists(st.tuples(st.integers(0, 1400), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)


@settings(max_examples=400)
@example([(0x20, b"\xff" * 8)])
@example([(64 + 8, b"\xff" * 8)])
@example([(64 + 32, b"\xff" * 8)])
@given(DAMAGE)
def test_no_damage_leads_to_anything_but_frames_or_the_one_error(damage):
    data = bytearray(write_core(plain()))
    for at, value in damage:
        data[at : at + len(value)] = value
    stream = Stream(bytes(data), more_bytes=1 << 20)
    try:
        core = read_core(stream)
    except BadCoreError:
        return
    frames = backtrace(core)
    assert 1 <= len(frames) <= MAX_FRAMES
    for frame in frames:
        assert 0 <= frame.address < 1 << 64
        assert len(frame.module) <= MAX_MODULE_CHARS
        assert frame.module.isprintable()


def test_names_of_files_are_shown_harmlessly():
    path = "/x" * 200 + "/\x1b[2Jä\n"
    parts = plain(mappings=[Mapping(CODE, CODE + PAGE, 0, path)])
    module = backtrace(read_core(io.BytesIO(write_core(parts))))[0].module
    assert module.endswith("/?[2Jä?")
    assert len(module) == MAX_MODULE_CHARS


def test_an_endless_core_ends():
    parts = plain(pieces=[plain().pieces[0], Piece(STACK, bytes(PAGE))])
    data = bytearray(write_core(parts))
    struct.pack_into("<Q", data, 64 + 2 * 56 + 8, corefile.MAX_CORE_BYTES + 1)
    stream = Stream(bytes(data), more_bytes=1 << 40)
    core = read_core(stream)
    assert not core.whole
    assert stream.given < 1 << 20
