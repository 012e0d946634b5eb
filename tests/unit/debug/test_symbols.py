"""Symbol files of real compilations in every form that compilers write, and hostile ones."""

import io
import struct
import subprocess
import tracemalloc
import zlib
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bundle.elves import COMPILER, compiled, needs_compiler
from zentrid.debug.lines import BadLinesError, LineSections, LineTable
from zentrid.debug.symbols import BadSymbolFileError, Place, SymbolFile, describe
from zentrid.ports import Frame

pytestmark = needs_compiler

SOURCE = """
__attribute__((noinline)) int inner(int value)
{
    return value * 3;
}

int outer(int value)
{
    return inner(value) + 1;
}

static int hidden(int value) { return value + 7; }
int main(void) { return outer(hidden(2)); }
"""
FORMS = ["-gdwarf-5", "-gdwarf-4", "-gdwarf-3", "-gdwarf-2", "-gdwarf64", "-gz=zlib", "-ffunction-sections"]


def build(folder: Path, *options: str, name: str = "sub/program.c") -> bytes:
    """Compile the source with lines and a build-id."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(SOURCE)
    subprocess.run(
        [str(COMPILER), "-g", "-O1", "-nostdlib", "-Wl,-e,main,--build-id=sha1", *options, "-o", "program", name],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return (folder / "program").read_bytes()


def names(program: Path) -> dict[str, int]:
    """Return where functions begin, by the compiler's own tool."""
    done = subprocess.run(["aarch64-linux-gnu-nm", program], capture_output=True, check=True).stdout.decode()
    return {words[2]: int(words[0], 16) for line in done.splitlines() if len(words := line.split()) == 3}


@pytest.mark.parametrize("option", FORMS)
def test_function_offset_file_and_line(option, tmp_path):
    data = build(tmp_path, option)
    file = SymbolFile(io.BytesIO(data))
    start = names(tmp_path / "program")["outer"]
    assert file.resolve(start) == Place("outer", 0, "sub/program.c", 8)
    place = file.resolve(start + 8)
    assert place is not None
    assert (place.function, place.offset, place.line) == ("outer", 8, 9)


@pytest.mark.parametrize("option", ["-gdwarf-5", "-gdwarf-4"])
def test_a_source_beside_the_compiler_has_no_folder(option, tmp_path):
    data = build(tmp_path, option, name="program.c")
    place = SymbolFile(io.BytesIO(data)).resolve(names(tmp_path / "program")["outer"])
    assert place == Place("outer", 0, "program.c", 8)


# The tool of Debian 12 finds no names of files in the 64-bit form.
@pytest.mark.parametrize("option", [*(form for form in FORMS if form != "-gdwarf64"), "-O2"])
def test_every_line_is_what_the_compilers_own_tool_says(option, tmp_path):
    data = build(tmp_path, option)
    file = SymbolFile(io.BytesIO(data))
    addresses = [n for start in names(tmp_path / "program").values() for n in range(start, start + 64, 4)]
    covered = [(address, place) for address in addresses if (place := file.resolve(address)) is not None]
    done = subprocess.run(
        ["aarch64-linux-gnu-addr2line", "-e", tmp_path / "program", *(hex(address) for address, _ in covered)],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert len(covered) > 8
    for (address, place), line in zip(covered, done, strict=True):
        assert line.partition(" ")[0].endswith(f"/{place.file}:{place.line}"), hex(address)


def test_an_own_symbol_file_is_as_good_as_the_program(tmp_path):
    data = build(tmp_path)
    only = tmp_path / "only"
    subprocess.run(["aarch64-linux-gnu-objcopy", "--only-keep-debug", tmp_path / "program", only], check=True)
    whole, part = SymbolFile(io.BytesIO(data)), SymbolFile(io.BytesIO(only.read_bytes()))
    assert whole.build_id == part.build_id
    assert len(whole.build_id) == 40
    for address in range(min(names(tmp_path / "program").values()), 0x1000, 4):
        assert whole.resolve(address) == part.resolve(address)


def test_a_stripped_library_names_what_it_exports(tmp_path):
    data = build(tmp_path, "-shared", "-fPIC", "-s")
    file = SymbolFile(io.BytesIO(data))
    known = {place.function for address in range(0, 0x1000, 4) if (place := file.resolve(address)) and not place.file}
    assert {"inner", "outer", "main"} <= known
    assert "hidden" not in known


def test_an_address_outside_every_function_has_no_place(tmp_path):
    data = build(tmp_path)
    file = SymbolFile(io.BytesIO(data))
    for address in (0, 1, max(names(tmp_path / "program").values()) + 0x1000, (1 << 64) - 1):
        assert file.resolve(address) is None


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"no elf at all", bytes(4096)], ids=["empty", "magic", "text", "zeros"]
)
def test_what_is_no_elf_file_is_refused(data):
    with pytest.raises(BadSymbolFileError):
        SymbolFile(io.BytesIO(data))


def test_another_machine_is_refused(tmp_path):
    compiled(tmp_path / "x", "-g", compiler="gcc")
    with (tmp_path / "x").open("rb") as stream, pytest.raises(BadSymbolFileError, match="not for 64-bit ARM"):
        SymbolFile(stream)


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Symbol files in three forms."""
    folder = tmp_path_factory.mktemp("good")
    return [build(folder, option) for option in ("-gdwarf-5", "-gdwarf-4", "-gz=zlib")]


def headers_of(data: bytes) -> dict[str, int]:
    """Return where each section's header is in the file."""
    (at,) = struct.unpack_from("<Q", data, 0x28)
    count, strings = struct.unpack_from("<HH", data, 0x3C)
    (names_at,) = struct.unpack_from("<Q", data, at + strings * 64 + 0x18)
    found = {}
    for number in range(count):
        (name,) = struct.unpack_from("<I", data, at + number * 64)
        found[data[names_at + name : data.index(b"\0", names_at + name)].decode()] = at + number * 64
    return found


def ask(data: bytes) -> None:
    """Ask a file everything; only the one error may come."""
    try:
        file = SymbolFile(io.BytesIO(data))
        for address in (0, *range(0x2A0, 0x300, 4), 0x1000, 1 << 63):
            place = file.resolve(address)
            assert place is None or place.function.isprintable()
    except BadSymbolFileError:
        pass


@settings(max_examples=300)
@given(data=st.data())
def test_no_damage_leads_to_anything_but_the_one_error(good, data):
    content = bytearray(data.draw(st.sampled_from(good)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    ask(bytes(content))


@settings(max_examples=200)
@given(data=st.data())
def test_no_damage_of_headers_and_lines_does(good, data):
    """The same where it hurts: section headers, and the line table's bytes."""
    content = bytearray(data.draw(st.sampled_from(good)))
    headers = headers_of(bytes(content))
    at = headers[data.draw(st.sampled_from(sorted(headers)))]
    if data.draw(st.booleans()):
        content[at + data.draw(st.integers(0, 63))] = data.draw(st.integers(0, 255))
    else:
        offset, size = struct.unpack_from("<QQ", content, headers[".debug_line"] + 0x18)
        content[offset + data.draw(st.integers(0, size - 1))] = data.draw(st.integers(0, 255))
    ask(bytes(content))


@pytest.mark.parametrize("size", [1 << 20, 1 << 60])
def test_a_section_that_is_not_there_costs_nothing(size, good):
    """SHT_NOBITS of any size is what --only-keep-debug makes of the code; here it is nothing."""
    content = bytearray(good[0])
    for name in (".debug_line", ".debug_str"):
        at = headers_of(good[0])[name]
        struct.pack_into("<I", content, at + 4, 8)
        struct.pack_into("<Q", content, at + 0x20, size)
    assert SymbolFile(io.BytesIO(content)).resolve(0x2C0) == Place("outer", 4)


def test_a_section_with_an_impossible_size_is_refused(good):
    content = bytearray(good[0])
    struct.pack_into("<Q", content, headers_of(good[0])[".symtab"] + 0x20, 1 << 40)
    file = SymbolFile(io.BytesIO(bytes(content)))
    with pytest.raises(BadSymbolFileError, match="more than"):
        file.resolve(0x300)


@pytest.mark.parametrize("claimed", [0, 1 << 20, 1 << 50])
def test_a_compressed_section_unpacks_to_no_more_than_its_limit(good, claimed):
    bomb = struct.pack("<IIQQ", 1, 0, claimed, 1) + zlib.compress(bytes(200 << 20), 1)
    content = bytearray(good[0])
    at = headers_of(good[0])[".debug_line"]
    (flags,) = struct.unpack_from("<Q", content, at + 8)
    struct.pack_into("<Q", content, at + 8, flags | 0x800)
    struct.pack_into("<QQ", content, at + 0x18, len(content), len(bomb))
    tracemalloc.start()
    try:
        with pytest.raises(BadSymbolFileError) if claimed != 0 else nullcontext():
            SymbolFile(io.BytesIO(bytes(content) + bomb)).resolve(0x2C0)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"", b"\1", struct.pack("<IIQQ", 1, 0, 100, 1) + b"no zlib", struct.pack("<IIQQ", 2, 0, 9, 1)]
)
def test_a_compressed_section_that_cannot_be_unpacked_is_refused(good, content):
    data = bytearray(good[0])
    at = headers_of(good[0])[".debug_line"]
    struct.pack_into("<Q", data, at + 8, 0x800)
    struct.pack_into("<QQ", data, at + 0x18, len(data), len(content))
    with pytest.raises(BadSymbolFileError):
        SymbolFile(io.BytesIO(bytes(data) + content)).resolve(0x2C0)


def unit_v5(formats: bytes, rest: bytes) -> bytes:
    """Return a line table of DWARF 5 with this list of folders."""
    lengths = b"\x01\x01\x01\xfb\x0e\x0d\0\x01\x01\x01\x01\0\0\0\x01\0\0\x01"
    body = formats + rest
    header = struct.pack("<HBBI", 5, 8, 0, len(lengths) + len(body)) + lengths + body
    return struct.pack("<I", len(header)) + header


@pytest.mark.parametrize(
    "table",
    [
        unit_v5(b"\0", b"\xff\xff\xff\xff\x7f"),  # so many folders without any content
        unit_v5(b"\0", b"\xc0\xb8\x02" + b"\0\0"),  # fewer, but many such units would take long
        unit_v5(b"\x01\x01\x08", b"\xff\xff\xff\xff\x7f"),  # so many folders with a name
        unit_v5(b"\x01\x01\x09", b"\x01\xff\xff\xff\x7f"),  # a block longer than the table
        unit_v5(b"\x01\x01\x77", b"\x01"),  # an unknown form
        b"\xff\xff\xff\xff" + b"\xff" * 8 + b"\x05\0",
        struct.pack("<I", 1 << 30) + b"\x05\0",
    ],
)
def test_a_line_table_that_promises_too_much_is_refused(table):
    with pytest.raises(BadLinesError):
        LineTable(LineSections(line=table))


def test_a_line_table_without_end_is_cut(monkeypatch):
    from zentrid.debug import lines

    monkeypatch.setattr(lines, "MAX_ROWS", 1000)
    header = b"\x04\x01\x01\xfb\x0e\x0d\0\x01\x01\x01\x01\0\0\0\x01\0\0\x01\0a.c\0\0\0\0\0"
    program = b"\0\x09\x02" + struct.pack("<Q", 0x1000) + b"\x21" * 100_000
    body = struct.pack("<HI", 4, len(header)) + header + program
    table = LineTable(LineSections(line=struct.pack("<I", len(body)) + body))
    assert table.find(0x1000 + 4 * 500) == ("a.c", 501) or table.find(0x1000) is not None
    assert len(table._lines) == 1000


def test_one_line_as_people_know_it():
    frame = Frame("/usr/share/zentri/apps/sample-arm/bin/sample-arm", "0123456789abcdef", 0x1234)
    place = Place("crash_now", 0x14, "scripts/samples/sample.c", 31)
    assert describe(frame, place) == "#0 crash_now+0x14 (sample.c:31) in sample-arm [build-id 01234567]"
    assert describe(frame, Place("memcpy", 0x8), 3) == "#3 memcpy+0x8 in sample-arm [build-id 01234567]"
    assert describe(frame, None, 1) == "#1 0x1234 in sample-arm [build-id 01234567]"
    assert describe(Frame("\x1b[2J/a\x07", "", 16), None) == "#0 0x10 in a? [no build-id]"
