"""The doors' client of the command line's socket: answers, the text before them, and consoles that are none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.commandline import console
from tests.support.fakes import Device
from zentrid.consoleclient import MAX_LOG_BYTES, ClosedError, Result, Session, UnreadableError, connect
from zentrid.core.framing import encode_log


async def session_with(data: bytes) -> Session:
    """Return a session in which the console has sent `data` and closed."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return Session(reader, None)  # type: ignore[arg-type]


async def test_lines_are_answered_one_after_the_other(tmp_path: Path) -> None:
    async with console(Device(tmp_path / "zentri"), tmp_path / "sock") as path:
        session = await connect(str(path), b"machine")
        session.writer.write(b"verson\r\nget system.boot.slot\r\n")
        refused, answered = await session.answer(), await session.answer()
        session.writer.close()
    assert (refused.code, refused.text) == (3, "Unknown command")
    assert refused.sentence == "There is no command 'verson'; 'help commands' lists the ones there are."
    assert (answered.code, answered.sentence, answered.log) == (0, "a", ())


@pytest.mark.parametrize("length", [10, 4000])
async def test_of_a_long_text_the_last_is_kept(length: int) -> None:
    lines = [f"{number} ".ljust(length, "ü") for number in range(4000)]
    found = await (await session_with(encode_log("\n".join(lines)) + b"R100004\r\nno\r\n")).answer()
    assert found.log[-1].endswith(lines[-1][-5:])
    assert "".join(lines).endswith("".join(found.log))
    assert MAX_LOG_BYTES - 4098 <= len("\r\n".join(found.log).encode()) <= MAX_LOG_BYTES


@pytest.mark.parametrize("most", [1, 3])
async def test_answers_come_in_pieces_of_any_size(most: int, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"\0once\n"
        answer = encode_log("why") + b"S100008\r\nfailed\r\n"
        for start in range(0, len(answer), most):
            writer.write(answer[start : start + most])
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "sock"):
        session = await connect(str(tmp_path / "sock"), b"once")
        assert await session.answer() == Result(1, b"failed\r\n", ("why",), safe_mode=True)
        with pytest.raises(ClosedError):
            await session.answer()
        session.writer.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ClosedError), (b"R00", ClosedError), (b"R000009\r\nshort", ClosedError), (b"L000003\r\na\r\n", ClosedError),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", UnreadableError),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_an_error_of_the_connection(data: bytes, error: type[OSError]) -> None:
    with pytest.raises(error):
        await (await session_with(data)).answer()


async def test_a_console_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await connect(str(tmp_path / "sock"), b"machine")
