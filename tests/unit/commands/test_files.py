"""Commands for files and streams: what they answer, and what every wrong use is answered with."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.console import Caller, MemoryPayload
from tests.support.fakes import Device
from zentrid.commands.call import Answer
from zentrid.core.crc16 import crc16
from zentrid.core.files import MAX_FILE_BYTES
from zentrid.core.framing import Code
from zentrid.core.streams import MAX_READ_BYTES, MAX_STREAMS, MAX_WRITE_BYTES


async def create(call: Caller, line: str, data: bytes) -> Answer:
    return await call(line, payload=MemoryPayload(data))


async def read_all(call: Caller, name: str) -> bytes:
    handle = await call.body(f"file_open {name}")
    data = (await call(f"read {handle} {MAX_READ_BYTES}")).data
    await call.body(f"close {handle}")
    assert data is not None
    return data


async def test_a_file_from_its_line_to_its_end(call: Caller) -> None:
    assert await call.body("ls") == "No files"
    answer = await create(call, "file_create webapp/a.txt 5 2.0.0 45", b"hello")
    assert (answer.code, answer.body) == (Code.SUCCESS, "File created")
    await create(call, "fcr -eu b 0", b"")
    assert await call.body("ls") == "b\nwebapp/a.txt"
    assert await call.body("ls -v") == (
        "#  id  type  flags  size  version  name\n"
        "   0   fe    0031   0     1.0.0    b\n"
        "   1   45    0001   5     2.0.0    webapp/a.txt"
    )
    assert await call.body("file_stat webapp/a.txt") == (
        f"name: webapp/a.txt\nsize: 5\nversion: 2.0.0\ntype: 45\nflags: 0001\ncrc: {crc16(b'hello'):04x}"
    )
    assert "flags: 0031 essential user" in await call.body("fst b")
    assert await read_all(call, "webapp/a.txt") == b"hello"
    assert await call.body("file_delete webapp/a.txt") == "File deleted"
    answer = await call("fde b")
    assert (answer.code, "essential" in answer.reason) == (Code.FAILED, True)
    await call.body("fde -f b")
    assert await call.body("ls") == "No files"


async def test_a_stream_is_read_in_pieces_and_ends(call: Caller) -> None:
    await create(call, "file_create a 10", b"0123456789")
    assert await call.body("file_open a") == "0"
    assert await call.body("poll 0") == "1"
    assert (await call("read 0 4")).data == b"0123"
    assert (await call("read 0 6")).data == b"456789"
    assert await call.body("poll 0") == "2"
    assert (await call("read 0 1")).data == b""
    assert (await call("stream_read 0 1")).data == b""
    assert await call.body("list") == "# stream  type  state  idle  info\n  0       FILE  ended  0     a"
    await call.body("close 0")
    assert await call.body("list") == "No streams"
    answer = await call("read 0 1")
    assert (answer.code, answer.reason) == (Code.FAILED, "There is no stream 0; 'list' shows those that are open.")


async def test_a_file_written_by_a_stream_is_there_with_its_last_byte(call: Caller) -> None:
    assert await call.body(f"file_create -o a 6 1.2.3 fe {crc16(b'abcdef'):x}") == "0"
    assert await call.body("poll 0") == "0"
    assert (await create(call, "write 0 3", b"abc")).code == Code.SUCCESS
    assert await call.body("ls") == "No files"
    answer = await create(call, "write 0 4", b"defg")
    assert (answer.code, "3 bytes more" in answer.reason) == (Code.FAILED, True)
    assert (await create(call, "stream_write 0 3", b"def")).code == Code.SUCCESS
    assert call.out.lines == ["File created"]
    assert await call.body("poll 0") == "2"
    assert (await create(call, "write 0 1", b"x")).code == Code.FAILED
    assert await call.body("close 0") == "Success"
    assert await read_all(call, "a") == b"abcdef"


async def test_an_empty_file_by_a_stream(call: Caller) -> None:
    handle = await call.body("file_create -o a 0")
    assert await call.body("ls") == "a"
    assert await call.body(f"poll {handle}") == "2"


async def test_closing_an_unfinished_file_says_that_it_is_lost(call: Caller, device: Device) -> None:
    await call.body("file_create -o a 6")
    await create(call, "write 0 3", b"abc")
    answer = await call("close 0")
    assert (answer.code, "3 of 6 bytes" in answer.reason) == (Code.FAILED, True)
    await call.body("file_create -o a 6")
    assert await call.body("close all") == "Success"
    assert any("0 of 6 bytes" in line for line in call.out.lines)
    assert await call.body("ls") == "No files"
    assert not any((device.store.top.parent / "files.new").iterdir())


async def test_a_broken_transfer_leaves_nothing(call: Caller, device: Device) -> None:
    await create(call, "file_create a 3", b"old")
    assert (await create(call, "file_create a 20000", b"x" * 19_999)).code == Code.FAILED
    answer = await create(call, "file_create a 3 1.0.0 fe 0000", b"new")
    assert (answer.code, "CRC" in answer.reason) == (Code.FAILED, True)
    assert await read_all(call, "a") == b"old"
    assert not any((device.store.top.parent / "files.new").iterdir())


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("file_create ../a 5", 7, 5),
        ("file_create a 5 bad/version", 7, 5),
        ("file_create a 5 1.0.0 xyz", 7, 5),
        ("file_create a 5 1.0.0 fe 12345", 7, 5),
        (f"file_create a {MAX_FILE_BYTES + 1}", 9, MAX_FILE_BYTES + 1),
        ("file_create a " + "9" * 40, 9, 999_999_999_999),
        ("file_create a five", 7, None),
        ("file_create -o ../a 5", 7, 0),
        (f"write 0 {MAX_WRITE_BYTES + 1}", 9, MAX_WRITE_BYTES + 1),
        ("write 7 5", 1, 5),
        ("write seven 5", 7, 5),
        ("write 100 5", 9, 5),
        ("http_post -l 5 ftp://x text/plain", 7, 5),
        ("http_post -l 70000 http://x text/plain", 9, 70_000),
        ('http_post -l 5 http://x "text\\x0dplain"', 7, 5),
        ("http_post http://", 4, None),
    ],
)
async def test_what_was_announced_is_told_before_anything_is_refused(
    call: Caller, line: str, code: int, expected: int | None
) -> None:
    payload = MemoryPayload(b"")
    answer = await call(line, payload=payload)
    assert (answer.code, payload.expected) == (code, expected)
    assert answer.reason
    assert call.crashes == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("read 0", 4), ("read 0 0", 9), (f"read 0 {MAX_READ_BYTES + 1}", 9), ("read -1 1", 7), ("read 0 1", 1), ("poll 0", 1),
        ("poll x", 7), ("close 0", 1), ("close none", 7), ("file_open a", 1), ("file_open /a", 7), ("file_stat a", 1),
        ("file_stat ..", 7), ("file_delete a", 1), ("file_delete .a", 7), ("ls -x", 6), ("ls a", 5), ("http_read_status 0", 1),
        ("file_create a 5 1 2 3 4", 5),
    ],
)  # fmt: skip
async def test_wrong_uses(call: Caller, line: str, code: int) -> None:
    answer = await call(line)
    assert answer.code == code
    assert answer.reason
    assert call.crashes == []


async def test_a_door_without_bytes_says_so(call: Caller) -> None:
    answer = await call("file_create a 5")
    assert (answer.code, "cannot be sent through this door" in answer.reason) == (Code.FAILED, True)
    assert await call.body("ls") == "No files"


async def test_reading_and_writing_are_not_mixed_up(call: Caller) -> None:
    await create(call, "file_create a 1", b"x")
    await call.body("file_open a")
    await call.body("file_create -o b 1")
    assert (await create(call, "write 0 1", b"x")).code == Code.FAILED
    assert (await call("read 1 1")).code == Code.FAILED
    answer = await call("http_read_status 0")
    assert (answer.code, "no request" in answer.reason) == (Code.FAILED, True)


async def test_streams_end(call: Caller, device: Device) -> None:
    await create(call, "file_create a 1", b"x")
    for number in range(MAX_STREAMS):
        assert await call.body("file_open a") == str(number)
    for line in ("file_open a", "file_create -o b 5"):
        answer = await call(line)
        assert (answer.code, "close one" in answer.reason) == (Code.FAILED, True)
    assert not any((device.store.top.parent / "files.new").iterdir())
    await call.body("close all")
    assert await call.body("list") == "No streams"


async def test_a_command_that_is_given_up_leaves_no_file_on_its_way(call: Caller, device: Device) -> None:
    class Endless(MemoryPayload):
        async def read(self, size_bytes: int) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

    task = asyncio.create_task(call("file_create a 50", payload=Endless(b"")))
    incoming = device.store.top.parent / "files.new"
    async with asyncio.timeout(5):
        while not incoming.exists() or not list(incoming.iterdir()):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(incoming.iterdir())
    room = await asyncio.to_thread(device.store._room)
    assert (room.files, room.total_bytes) == (0, 0)


async def test_in_safe_mode_files_can_be_had_and_servers_not_asked(safe_call: Caller) -> None:
    await create(safe_call, "file_create a 1", b"x")
    assert await safe_call.body("ls") == "a"
    assert (await safe_call("http_get x")).code == Code.UNKNOWN_COMMAND
    payload = MemoryPayload(b"reboot")
    assert (await safe_call("http_post -l 6 x text/plain", payload=payload)).code == Code.UNKNOWN_COMMAND
    assert payload.expected == 6
    assert (await safe_call("http_download x ../y")).code == Code.BAD_ARGUMENT
