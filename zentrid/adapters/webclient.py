"""The supervisor's side of asking web servers: starts a process for each request and passes its bytes on, parsing none."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from zentrid.adapters.incoming import Incoming
from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.streams import Poll, StreamError
from zentrid.core.text import printable
from zentrid.core.webrequest import HEAD_S, MAX_BODY_BYTES, MAX_HEAD_LINE_BYTES, SILENCE_S, Head, WebRequest, parse_head
from zentrid.core.weburl import parse_url
from zentrid.errors import ZentriError

log = logging.getLogger(__name__)

WEB_ARGV: Final = (sys.executable, "-m", "zentrid.webworker")
USER: Final = "zentri-fetch"
"""Whom the process becomes."""
MAX_REQUESTS: Final = 2
"""At the same time: each is a process of about 30 MiB."""
HELD_BYTES: Final = 32 * 1024
"""What has come of an answer and was not read; the rest waits at the server."""
_PIECE_BYTES: Final = 16 * 1024
_END_S: Final = 2.0
_LOOK_S: Final = 0.01
_SAID_BYTES: Final = 4000


class WebClientError(ZentriError):
    """A web server did not answer as hoped; the sentence says why."""

    reason = "web"


class BrokenOffError(WebClientError):
    """An answer has ended before it was whole; what came of it is worth nothing."""

    reason = "web_broken_off"


class WebAnswer:
    """An answer on its way. Every call may raise WebClientError."""

    def __init__(self, process: asyncio.subprocess.Process, client: WebClient) -> None:
        assert process.stdout is not None
        stdout = process.stdout
        self.head = Head()
        self._process = process
        self._client = client
        self._incoming = Incoming(lambda: stdout.read(_PIECE_BYTES), HELD_BYTES)
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    async def begin(self, request: WebRequest, body: bytes) -> None:
        """Send the request and wait for the answer's head."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(HEAD_S):
                with suppress(BrokenPipeError, ConnectionResetError):
                    self._process.stdin.write(request.to_line() + body)
                    await self._process.stdin.drain()
                line = await self._process.stdout.readline()
            self.head = parse_head(line)
        except TimeoutError:
            raise WebClientError(f"No answer began within {HEAD_S:g} s; try again later.") from None
        except ValueError as error:
            said = await self._said()
            log.error("a request to a web server failed inside the device: %s", said or error)
            raise WebClientError("The request failed inside the device; the log has the details.") from error
        if self.head.error:
            raise WebClientError(self.head.error)
        self._pump = asyncio.create_task(self._incoming.pump(), name="answer of a web server")

    @property
    def state(self) -> Poll:
        """Whether there is something to read."""
        if self._incoming.pending:
            return Poll.DATA
        return Poll.ENDED if self._closed or self._incoming.ended else Poll.NOTHING

    async def read(self, size_bytes: int) -> bytes:
        """Return the next `size_bytes` bytes, waiting for them; fewer only at the end of the answer."""
        data = bytearray()
        try:
            while len(data) < size_bytes:
                if not await self._incoming.wait(SILENCE_S):
                    raise WebClientError(
                        f"The server sent nothing for {SILENCE_S:g} s; read again, or close the stream."
                    )
                piece = self._incoming.take(size_bytes - len(data))
                if not piece:
                    await self._check_whole()
                    break
                data += piece
        except BrokenOffError:
            raise
        except BaseException:
            self._incoming.put_back(bytes(data))  # for the next one who reads
            raise
        return bytes(data)

    async def _check_whole(self) -> None:
        """At the end of what comes: it is the answer's end, or the process says what went wrong."""
        if self._closed:
            raise BrokenOffError("The stream was closed by another command.")
        await self._exited()
        if self._process.returncode != 0:
            raise BrokenOffError(await self._said() or "The answer broke off; try again.")

    async def _exited(self) -> None:
        """Wait for the process, not for its pipes, which `Process.wait` waits for too."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                while self._process.returncode is None:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(_LOOK_S)

    async def _said(self) -> str:
        """Return the last line that the process said about a failure."""
        assert self._process.stderr is not None
        said = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                while len(said) < _SAID_BYTES and (piece := await self._process.stderr.read(_SAID_BYTES)):
                    said += piece
        return printable(said.decode(errors="replace").strip().rpartition("\n")[2])

    async def close(self) -> None:
        """End the process; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._client.gone(self)
        with suppress(ProcessLookupError):
            self._process.kill()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        self._incoming.end()
        await self._exited()
        self._process._transport.close()  # type: ignore[attr-defined]  # nothing else closes the pipes


@dataclass(frozen=True)
class WebFiles:
    """Where the process finds whom it may believe."""

    identity_dir: Path
    ca_file: Path


class WebClient:
    """Asks web servers, a few at a time."""

    def __init__(
        self,
        files: WebFiles,
        user_agent: str,
        *,
        argv: Sequence[str] = WEB_ARGV,
        most: int = MAX_REQUESTS,
        user: str = USER,
    ) -> None:
        self._files = files
        self._user_agent = user_agent
        self._argv = tuple(argv)
        self._most = most
        self._user = user
        self._open: set[WebAnswer] = set()
        self._starting = 0

    def request(self, address: str, method: str = "GET", content_type: str = "") -> WebRequest:
        """Return a request; an address without a scheme is one of http. Raises UrlError."""
        url = address if "://" in address else f"http://{address}"
        parse_url(url)
        return WebRequest(
            url, method, content_type,
            identity_dir=str(self._files.identity_dir), ca_file=str(self._files.ca_file), user_agent=self._user_agent,
            user=self._user,
        )  # fmt: skip

    def open(self, address: str, method: str = "GET", content_type: str = "") -> HttpStream:
        """Return a request that is not sent yet, as a stream. Raises UrlError."""
        return HttpStream(self, self.request(address, method, content_type))

    async def ask(self, request: WebRequest, body: bytes = b"") -> WebAnswer:
        """Send a request and return the answer as soon as its head is there. Raises WebClientError, StreamError."""
        if len(self._open) + self._starting >= self._most:
            raise StreamError(
                f"{self._most} requests are under way already; read them to the end or close one ('list')."
            )
        self._starting += 1
        try:
            answer = WebAnswer(await self._start(), self)
            self._open.add(answer)
        finally:
            self._starting -= 1
        try:
            await answer.begin(replace(request, body_bytes=len(body)), body)
        except BaseException:
            await answer.close()
            raise
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=MAX_HEAD_LINE_BYTES,
                start_new_session=True,
            )
        except OSError as error:
            raise WebClientError(f"The request cannot be started ({error.strerror}); try again later.") from error

    def gone(self, answer: WebAnswer) -> None:
        """An answer is not on its way any more."""
        self._open.discard(answer)


class HttpStream:
    """A request and its answer as a stream: what is written is sent along, what is read is the answer."""

    kind = "HTTP"

    def __init__(self, client: WebClient, request: WebRequest) -> None:
        """Take a request that is not sent yet."""
        self.info = str(parse_url(request.url))
        self._client = client
        self._request = request
        self._body = bytearray()
        self._answer: WebAnswer | None = None
        self._status = 0
        self._ended = False

    @property
    def state(self) -> Poll:
        """Whether there is something of the answer to read."""
        if self._ended:
            return Poll.ENDED
        return Poll.NOTHING if self._answer is None else self._answer.state

    @property
    def length_bytes(self) -> int | None:
        """How long the answer is, if the server said so."""
        return self._answer.head.length_bytes if self._answer is not None else None

    async def status(self) -> int:
        """Send the request if it was not sent yet, and return the answer's status. Raises ZentriError."""
        if not self._status:
            if self._ended:
                raise WebClientError("The request was closed before it was sent; begin a new one.")
            self._answer = await self._client.ask(self._request, bytes(self._body))
            self._status = self._answer.head.status
            if self._ended:  # closed meanwhile
                await self._answer.close()
        return self._status

    async def read(self, size_bytes: int) -> bytes:
        """Return the next bytes of the answer; fewer at its end, where the connection is closed."""
        await self.status()
        if self._ended or self._answer is None:
            return b""
        try:
            data = await self._answer.read(size_bytes)
        except BrokenOffError:
            await self.close()
            raise
        if len(data) < size_bytes:
            await self.close()
        return data

    async def write(self, data: bytes) -> str:
        """Take bytes that are to be sent along."""
        if self._answer is not None or self._ended or self._request.method != "POST":
            raise StreamError("The request was sent already; 'http_post -o' opens one that takes bytes.")
        if len(self._body) + len(data) > MAX_BODY_BYTES:
            raise CommandError(Code.OUT_OF_BOUNDS, f"A request takes at most {MAX_BODY_BYTES} bytes along.")
        self._body += data
        return ""

    async def close(self) -> str:
        """End it, wherever it is."""
        unsent = len(self._body) if self._answer is None and not self._ended else 0
        self._ended = True
        if self._answer is not None:
            await self._answer.close()
        return f"The request was not sent, with {unsent} bytes." if unsent else ""
