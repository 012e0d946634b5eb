"""Files: listed, created with the bytes that follow the line or by a stream, opened, described, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zentrid.commands.call import Call
from zentrid.commands.context import NewFileStream
from zentrid.commands.options import whole_number
from zentrid.commands.registry import Command
from zentrid.commands.table import columns
from zentrid.core.files import (
    DEFAULT_TYPE,
    DEFAULT_VERSION,
    FLAG_ESSENTIAL,
    FLAG_USER,
    MAX_FILE_BYTES,
    FileInfo,
    FileMeta,
    check_name,
    check_version,
    parse_crc,
    parse_type,
)
from zentrid.core.grammar import Argument, Option

PIECE_BYTES: Final = 16 * 1024
CREATE_TIMEOUT_S: Final = 900.0
"""Enough for some MiB over a serial line."""
_NAME: Final = Argument("name", "the file's name, such as webapp/index.html")


async def _ls(call: Call) -> str:
    infos = await call.ctx.files.list()
    if call.arguments.flag("v"):
        return file_lines(infos)
    return "\n".join(info.name for info in infos) or "No files"


def file_lines(infos: Sequence[FileInfo]) -> str:
    """Return files as a table: the header begins with `#`, columns are separated by blanks; type and flags in hexadecimal."""
    rows = [("#", "id", "type", "flags", "size", "version", "name")]
    rows += [
        (
            "",
            str(number),
            f"{info.meta.type:02x}",
            f"{info.flags:04x}",
            str(info.size_bytes),
            info.meta.version,
            info.name,
        )
        for number, info in enumerate(infos)
    ]
    return columns(rows)


async def _create(call: Call) -> str:
    values, streamed = call.arguments.values, call.arguments.flag("o")
    size_bytes = whole_number(values["size"], "size", 0, MAX_FILE_BYTES, "bytes")
    name = check_name(values["name"])
    meta = FileMeta(
        check_version(values.get("version", DEFAULT_VERSION)),
        parse_type(values["type"]) if "type" in values else DEFAULT_TYPE,
        (FLAG_ESSENTIAL if call.arguments.flag("e") else 0) | (FLAG_USER if call.arguments.flag("u") else 0),
        parse_crc(values["crc"]) if "crc" in values else None,
    )
    if not streamed:
        await _receive(call, await call.ctx.files.create(name, size_bytes, meta), size_bytes)
        return "File created"
    await call.ctx.streams.check_room()
    stream = await call.ctx.files.create(name, size_bytes, meta)
    if not size_bytes:
        await stream.finish()
    return str(await call.ctx.streams.add(stream))


async def _receive(call: Call, stream: NewFileStream, size_bytes: int) -> None:
    try:
        left = size_bytes
        while left:
            data = await call.payload.read(min(left, PIECE_BYTES))
            left -= len(data)
            await stream.write(data)
        if not size_bytes:
            await stream.finish()
    finally:
        await stream.close()


async def _open(call: Call) -> str:
    name = check_name(call.arguments.values["name"])
    await call.ctx.streams.check_room()
    return str(await call.ctx.streams.add(await call.ctx.files.open(name)))


async def _delete(call: Call) -> str:
    name = check_name(call.arguments.values["name"])
    await call.ctx.files.delete(name, force=call.arguments.flag("f"))
    return "File deleted"


async def _stat(call: Call) -> str:
    return stat_lines(await call.ctx.files.stat(check_name(call.arguments.values["name"])))


def stat_lines(info: FileInfo) -> str:
    """Return what is known of one file, a line for each fact."""
    meta = info.meta
    marks = [word for flag, word in ((FLAG_ESSENTIAL, "essential"), (FLAG_USER, "user")) if meta.flags & flag]
    facts = {
        "name": info.name,
        "size": str(info.size_bytes),
        "version": meta.version,
        "type": f"{meta.type:02x}",
        "flags": " ".join((f"{info.flags:04x}", *marks)),
        "crc": "unknown" if meta.crc is None else f"{meta.crc:04x}",
    }
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


COMMANDS = (
    Command(
        "ls",
        "list the files",
        _ls,
        "ls -v",
        options=(Option("v", "number, type, flags, size, version and name"),),
    ),
    Command(
        "file_create",
        "create or replace a file; its bytes follow the line, or with -o are written to the stream that is returned",
        _create,
        "file_create webapp/index.html 1204 1.0.0 fe 6f91",
        "fcr",
        arguments=(
            _NAME,
            Argument("size", f"how many bytes it has, at most {MAX_FILE_BYTES}"),
            Argument("version", f"its version; {DEFAULT_VERSION} if left out", optional=True),
            Argument(
                "type", f"a number for whoever uses it, in hexadecimal; {DEFAULT_TYPE:02x} if left out", optional=True
            ),
            Argument("crc", "CRC-16 of its bytes in hexadecimal; one that has another is not kept", optional=True),
        ),
        options=(
            Option("e", "essential: deleted with 'file_delete -f' only"),
            Option("u", "user: a mark that 'ls -v' shows"),
            Option("o", "return a stream; the file is there when all bytes were written to it"),
        ),
        timeout_s=CREATE_TIMEOUT_S,
        payload_size=lambda given: "0" if given.flag("o") else given.values["size"],
    ),
    Command("file_open", "open a file for reading and return its stream", _open, "file_open log.txt", "fop", (_NAME,)),
    Command(
        "file_delete",
        "delete a file",
        _delete,
        "file_delete log.txt",
        "fde",
        (_NAME,),
        (Option("f", "also one that is marked as essential"),),
    ),
    Command(
        "file_stat",
        "print size, version, type, flags and CRC-16 of a file",
        _stat,
        "file_stat webapp/index.html",
        "fst",
        (_NAME,),
    ),
)
