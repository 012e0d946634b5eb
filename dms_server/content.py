"""Files whose content has a name: answers with ranges, where `If-Range` compares the content and not a time."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.typedefs import LooseHeaders
from aiohttp.web_request import BaseRequest

CHUNK_BYTES = 256 * 1024


class ContentResponse(web.StreamResponse):
    """Sends an open file, whole or a range of it, and closes it. `etag` is quoted, strong, and names the content."""

    def __init__(self, stream: BinaryIO, etag: str, headers: LooseHeaders) -> None:
        super().__init__(headers=headers)
        self._stream = stream
        self._etag = etag

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send head and content, unless that was done."""
        if self.prepared:
            return await super().prepare(request)
        try:
            size = await asyncio.to_thread(self._stream.seek, 0, 2)
            start, end = self._choose(request, size)
            self.headers["ETag"] = self._etag
            self.headers["Accept-Ranges"] = "bytes"
            if self.status != web.HTTPNotModified.status_code:
                self.content_length = end - start
            writer = await super().prepare(request)
            if request.method != "HEAD":
                await self._send(start, end)
            await self.write_eof()
            return writer
        finally:
            await asyncio.to_thread(self._stream.close)

    def _choose(self, request: BaseRequest, size: int) -> tuple[int, int]:
        """Set status and range header; return the bytes to send: start, end (exclusive)."""
        if _names(request.headers.get("If-None-Match", ""), self._etag):
            self.set_status(web.HTTPNotModified.status_code)
            return 0, 0
        match = request.headers.get("If-Match")
        if match is not None and not _names(match, self._etag):
            self.set_status(web.HTTPPreconditionFailed.status_code)
            return 0, 0
        # Another content than the one that the client has the beginning of: the range would not fit.
        if "Range" not in request.headers or request.headers.get("If-Range", self._etag).strip() != self._etag:
            return 0, size
        try:
            wanted = request.http_range
        except ValueError:
            wanted = slice(size, None)
        start = wanted.start if wanted.start is not None else 0
        start = max(0, size + start) if start < 0 else start
        if start >= size:
            self.set_status(web.HTTPRequestRangeNotSatisfiable.status_code)
            self.headers["Content-Range"] = f"bytes */{size}"
            return 0, 0
        end = size if wanted.stop is None else min(size, wanted.stop)
        self.set_status(web.HTTPPartialContent.status_code)
        self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return start, end

    async def _send(self, start: int, end: int) -> None:
        await asyncio.to_thread(self._stream.seek, start)
        while start < end:
            chunk = await asyncio.to_thread(self._stream.read, min(CHUNK_BYTES, end - start))
            if not chunk:
                raise ConnectionResetError("the file became shorter while it was sent")
            await self.write(chunk)
            start += len(chunk)


def _names(header: str, etag: str) -> bool:
    """Tell whether a list of entity tags has this one."""
    return any(tag.strip() in ("*", etag) for tag in header.split(","))
