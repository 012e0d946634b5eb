"""Streams: reading, writing and closing what other commands opened. The numbers hold for the whole device."""

from __future__ import annotations

from zentrid.commands.call import Call, Reply
from zentrid.commands.options import whole_number
from zentrid.commands.registry import Command
from zentrid.commands.table import columns
from zentrid.core.grammar import Argument
from zentrid.core.streams import HANDLES, MAX_READ_BYTES, MAX_WRITE_BYTES, StreamError

_STATES = ("idle", "data", "ended")
_STREAM = Argument("stream", "the stream's number, as the command that opened it printed it")


def handle_of(call: Call) -> int:
    """Return the number of the stream that is meant. Raises CommandError."""
    return whole_number(call.arguments.values["stream"], "stream", 0, HANDLES - 1)


async def _read(call: Call) -> Reply:
    size_bytes = whole_number(call.arguments.values["size"], "size", 1, MAX_READ_BYTES, "bytes")
    async with call.ctx.streams.using(handle_of(call)) as stream:
        return Reply(data=await stream.read(size_bytes))


async def _write(call: Call) -> None:
    size_bytes = whole_number(call.arguments.values["size"], "size", 0, MAX_WRITE_BYTES, "bytes")
    async with call.ctx.streams.using(handle_of(call)) as stream:
        said = await stream.write(await call.payload.read(size_bytes))
    if said:
        call.out.log(said)


async def _close(call: Call) -> None:
    if call.arguments.values["stream"] == "all":
        for lost in await call.ctx.streams.close_all():
            call.out.log(lost)
        return
    lost = await call.ctx.streams.close(handle_of(call))
    if lost:
        raise StreamError(lost)


async def _poll(call: Call) -> str:
    return str(int(call.ctx.streams.look(handle_of(call)).state))


async def _list(call: Call) -> str:
    streams = call.ctx.streams
    entries = streams.entries()
    if not entries:
        return "No streams"
    rows = [("# stream", "type", "state", "idle", "info")]
    rows += [
        (
            f"  {entry.handle}",
            entry.stream.kind,
            "busy" if entry.busy else _STATES[entry.stream.state],
            f"{streams.idle_s(entry):.0f}",
            entry.stream.info,
        )
        for entry in entries
    ]
    return columns(rows)


COMMANDS = (
    Command(
        "stream_read",
        "read bytes from a stream; fewer than asked for mean that it has ended",
        _read,
        "stream_read 0 1000",
        "read",
        (_STREAM, Argument("size", f"how many bytes, at most {MAX_READ_BYTES}")),
    ),
    Command(
        "stream_write",
        "write the bytes that follow the line to a stream",
        _write,
        "stream_write 0 12",
        "write",
        (_STREAM, Argument("size", f"how many bytes follow, at most {MAX_WRITE_BYTES}")),
        payload_size=lambda given: given.values["size"],
    ),
    Command(
        "stream_close",
        "close a stream, or all; a file that was not written to its end is not kept",
        _close,
        "stream_close 0",
        "close",
        (Argument("stream", "the stream's number, or all"),),
    ),
    Command(
        "stream_poll",
        "print 1 if there is something to read on a stream, 0 if not now, 2 if it has ended",
        _poll,
        "stream_poll 0",
        "poll",
        (_STREAM,),
    ),
    Command("stream_list", "list the streams that are open", _list, "stream_list", "list"),
)
