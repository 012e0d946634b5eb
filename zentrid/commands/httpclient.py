"""Requests to web servers: the answer is a stream, or becomes a file."""

from __future__ import annotations

from typing import Final

from zentrid.commands.call import Call
from zentrid.commands.context import HttpAnswer, NewFileStream
from zentrid.commands.options import whole_number
from zentrid.commands.registry import Command
from zentrid.commands.streams import handle_of
from zentrid.core.files import FileMeta, check_name, parse_crc
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError, Option
from zentrid.core.streams import StreamError
from zentrid.core.webrequest import MAX_BODY_BYTES, MAX_S
from zentrid.core.weburl import UrlError
from zentrid.errors import ZentriError

PIECE_BYTES: Final = 16 * 1024
MAX_TYPE_CHARS: Final = 100
_OK: Final = 200
_URL: Final = Argument("url", "the address; http:// if it begins with no scheme")


def _request(call: Call, method: str = "GET", content_type: str = "") -> HttpAnswer:
    try:
        return call.ctx.web.open(call.arguments.values["url"], method, content_type)
    except UrlError as error:
        raise CommandError(Code.BAD_ARGUMENT, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


async def _get(call: Call) -> str:
    stream = _request(call)
    await call.ctx.streams.check_room()
    return await _send(call, stream)


async def _post(call: Call) -> str:
    size_bytes = whole_number(call.arguments.options.get("l", "0"), "-l", 0, MAX_BODY_BYTES, "bytes")
    content_type = call.arguments.values["content_type"]
    if len(content_type) > MAX_TYPE_CHARS or not (content_type.isascii() and content_type.isprintable()):
        raise CommandError(Code.BAD_ARGUMENT, "The content type is something like application/json.")
    stream = _request(call, "POST", content_type)
    await call.ctx.streams.check_room()
    await stream.write(await call.payload.read(size_bytes))
    if call.arguments.flag("o"):
        return str(await call.ctx.streams.add(stream))
    return await _send(call, stream)


async def _send(call: Call, stream: HttpAnswer) -> str:
    """Send a request, and return the number of its answer's stream."""
    try:
        status = await stream.status()
    except BaseException:
        await stream.close()
        raise
    call.out.log(f"HTTP response: {status}")
    return str(await call.ctx.streams.add(stream))


async def _status(call: Call) -> str:
    async with call.ctx.streams.using(handle_of(call)) as stream:
        if not isinstance(stream, HttpAnswer):
            raise StreamError("That stream is no request to a web server; 'list' shows which ones are.")
        return str(await stream.status())


async def _download(call: Call) -> str:
    name = check_name(call.arguments.values["file"])
    crc = call.arguments.options.get("c")
    meta = FileMeta(crc=None if crc is None else parse_crc(crc))
    stream = _request(call)
    try:
        status = await stream.status()
        if status != _OK:
            raise ZentriError(
                f"The server answered with status {status}, so there is nothing to keep; check the address."
            )
        new = await call.ctx.files.create(name, stream.length_bytes, meta)
        try:
            await _receive(call, stream, new)
        finally:
            await new.close()
    finally:
        await stream.close()
    return "File created"


async def _receive(call: Call, stream: HttpAnswer, new: NewFileStream) -> None:
    total, received = stream.length_bytes, 0
    while True:
        data = await stream.read(PIECE_BYTES)
        if data:
            await new.write(data)
        received += len(data)
        if total:
            call.out.progress(received * 100 // total, f"downloading: {received} bytes")
        if len(data) < PIECE_BYTES:
            break
    await new.finish()


COMMANDS = (
    Command(
        "http_get",
        "ask a web server and return the stream of its answer",
        _get,
        "http_get http://192.168.1.5:8000/state.json",
        "hge",
        (_URL,),
        web_addresses=True,
        safe_mode=False,
    ),
    Command(
        "http_post",
        "send something to a web server and return the stream of its answer",
        _post,
        "http_post -l 13 http://192.168.1.5:8000/hello application/json",
        "hpo",
        (_URL, Argument("content_type", "what is sent, such as application/json")),
        (
            Option("l", "so many bytes follow the line, and are sent", "length"),
            Option("o", "do not send yet: 'stream_write' adds bytes, 'http_read_status' sends"),
        ),
        safe_mode=False,
        web_addresses=True,
        payload_size=lambda given: given.options.get("l", "0"),
    ),
    Command(
        "http_read_status",
        "print the status of a web server's answer, such as 200; sends a request that waits",
        _status,
        "http_read_status 0",
        "hre",
        (Argument("stream", "the number that http_get or http_post printed"),),
        safe_mode=False,
    ),
    Command(
        "http_download",
        "fetch a file from a web server and keep it",
        _download,
        "http_download -c 6f91 http://192.168.1.5:8000/page.html webapp/page.html",
        "hdo",
        (_URL, Argument("file", "the name that it gets")),
        (Option("c", "CRC-16 of its bytes in hexadecimal; one that has another is not kept", "crc"),),
        timeout_s=MAX_S,
        web_addresses=True,
    ),
)
