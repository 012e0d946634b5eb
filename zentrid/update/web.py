"""A file on any web server, read at any place: by ranges where the server has them, else going forward only.

Nothing is kept on the device's disk. A server that ignores ranges is read once from its beginning, what is not needed being
dropped; going back, or a lost connection, begins again and passes over what was read. The server is not trusted with
anything: what it sends counts only by the signatures and hashes inside. So the device, which has no list of public
authorities, takes `https` from a server that it cannot check too, and says so; a password it gives only to one it can.
"""

from __future__ import annotations

import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from zentrid.core.weburl import MAX_REDIRECTS, UrlError, WebUrl
from zentrid.update.errors import DmsUnreachableError, PayloadError, UpdateError, printable
from zentrid.update.payloads import Retries
from zentrid.update.transport import Limits, Pace, Throttle

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_WHOLE, _PART, _BEYOND, _TOO_MANY, _SERVER_ERROR = 200, 206, 416, 429, 500


class WebError(UpdateError):
    """The web server does not serve the bundle in a way that can be used; the sentence says why."""

    reason = "web"


class WebLostError(WebError):
    """It may work if it is tried again."""

    reason = "web_lost"


@dataclass(frozen=True)
class WebTrust:
    """How to meet a server with https. Made while the device's certificates can be read."""

    checked: ssl.SSLContext
    unchecked: ssl.SSLContext


def web_trust(identity_dir: Path) -> WebTrust:
    """Return contexts that know the authorities of the system, of which there may be none, and the DMS's own."""
    checked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    checked.load_default_certs()
    with suppress(OSError, ssl.SSLError):
        checked.load_verify_locations(identity_dir / "dms_ca.crt")
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    return WebTrust(checked, unchecked)


@dataclass(frozen=True)
class _Seen:
    """What tells one state of a file from another."""

    origin: tuple[str, str, int]
    etag: str
    modified: str
    total_bytes: int | None

    def differs(self, other: _Seen) -> bool:
        """Tell whether both certainly are not the same file; another server names the same file differently."""
        pairs: list[tuple[object, object]] = [(self.total_bytes, other.total_bytes)]
        if self.origin == other.origin:
            pairs += [(self.etag, other.etag), (self.modified, other.modified)]
        return any(mine and theirs and mine != theirs for mine, theirs in pairs)


class WebFile:
    """Reads one file. Every call may raise WebError, or PayloadError if the file changed in between."""

    def __init__(
        self,
        url: WebUrl,
        trust: WebTrust,
        limits: Limits | None = None,
        retries: Retries | None = None,
        *,
        user_agent: str = "zentrid",
        say: Callable[[str], None] = lambda _line: None,
        alive: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`say` gets lines for the log; `alive` is called whenever something has arrived."""
        self.received_bytes = 0
        self.whole = False
        """The server does not serve parts."""
        self._url = self._final = url
        self._trust = trust
        self._unchecked: set[tuple[str, str, int]] = set()
        self._limits = limits or Limits()
        self._retries = retries or Retries()
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._say, self._alive, self._clock, self._sleep = say, alive, clock, sleep
        self._deadline_s = clock() + self._limits.total_s
        self._throttle = Throttle(self._limits.max_rate_bytes_s, clock, sleep)
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._pool_for: tuple[str, str, int] | None = None
        self._seen: _Seen | None = None
        self._body: urllib3.BaseHTTPResponse | None = None
        self._body_at = 0

    def close(self) -> None:
        """Close all connections."""
        self._drop_body()
        if self._pool is not None:
            self._pool.close()
        self._pool = self._pool_for = None

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes `start` to `end` (exclusive); fewer only where the file ends. Lost connections are taken up again."""
        position, failures = start, 0
        while position < end and not self._is_end(position):
            before = position
            try:
                for chunk in self._part(position, end):
                    position += len(chunk)
                    yield chunk
                if position < end and not self._is_end(position):
                    raise WebLostError(f"{self._url} ended its answer early; try again later")
            except WebLostError:
                failures = 1 if position - before >= self._retries.enough_bytes else failures + 1
                if failures >= self._retries.most:
                    raise
                self._start_over(min(self._retries.first_pause_s * 2 ** (failures - 1), self._retries.longest_pause_s))

    def _is_end(self, position: int) -> bool:
        total_bytes = self._seen.total_bytes if self._seen else None
        return total_bytes is not None and position >= total_bytes

    def _start_over(self, pause_s: float) -> None:
        # What a redirect led to may be valid for a short time only.
        self._final = self._url
        self.close()
        if self._clock() + pause_s >= self._deadline_s:
            raise WebError(f"there was no time left for {self._url}; try again on a better connection")
        self._sleep(pause_s)

    # --- ways to read ---------------------------------------------------------------------------------------------
    def _part(self, start: int, end: int) -> Iterator[bytes]:
        if not self.whole:
            response = self._open({"Range": f"bytes={start}-{end - 1}"})
            if response.status != _WHOLE:
                try:
                    if self._check_range(response, start):
                        yield from self._chunks(response, end - start)
                finally:
                    _put_back(response)
                return
            self.whole = True
            self._body, self._body_at = response, 0
        yield from self._forward(start, end)

    def _forward(self, start: int, end: int) -> Iterator[bytes]:
        if self._body is None or self._body_at > start:
            self._drop_body()
            response = self._open({})
            if response.status != _WHOLE:
                response.close()
                raise WebError(f"{self._final} answered with status {response.status}; use another web server")
            self._body, self._body_at = response, 0
        for chunk in self._chunks(self._body, start - self._body_at):
            self._body_at += len(chunk)
        if self._body_at < start and not self._is_end(self._body_at):
            raise WebLostError(f"{self._url} ended its answer early; try again later")
        for chunk in self._chunks(self._body, end - start):
            self._body_at += len(chunk)
            yield chunk

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
        self._body = None

    def _check_range(self, response: urllib3.BaseHTTPResponse, start: int) -> bool:
        """Tell whether the answer has bytes from `start` on; False: the file ends before. Raises WebError."""
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        place, _, total = rest.partition("/")
        size = int(total) if total.isascii() and total.isdigit() and len(total) < 16 else None
        if unit != "bytes" or size is None:
            raise WebError(f"{self._final} does not tell the file's size; serve it with another web server")
        self._note(response, size)
        if response.status == _BEYOND and size <= start:
            return False
        if response.status != _PART or place.partition("-")[0] != str(start):
            raise WebError(f"{self._final} sent another part of the file than was asked for; use another web server")
        return True

    def _note(self, response: urllib3.BaseHTTPResponse, total_bytes: int | None) -> None:
        etag = response.headers.get("ETag", "")
        strong = "" if etag.startswith("W/") else etag
        seen = _Seen(self._final.origin, strong, response.headers.get("Last-Modified", ""), total_bytes)
        if self._seen is not None and self._seen.differs(seen):
            raise PayloadError(f"the file at {self._url} was changed while it was read; start the update again")
        self._seen = self._seen or seen

    # --- connections ----------------------------------------------------------------------------------------------
    def _open(self, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Return the answer, redirects followed: status 200, 206 or 416, its body not read yet."""
        for _ in range(MAX_REDIRECTS + 1):
            response = self._ask(headers)
            if response.status not in _REDIRECTS:
                break
            location = response.headers.get("Location", "")
            response.close()
            try:
                self._final = self._final.redirected(location)
            except UrlError as error:
                raise WebError(f"{self._url} leads elsewhere, but {error}") from error
        else:
            raise WebError(f"{self._url} leads elsewhere more than {MAX_REDIRECTS} times; give the file's own address")
        try:
            self._check_answer(response)
        except UpdateError:
            response.close()
            raise
        return response

    def _check_answer(self, response: urllib3.BaseHTTPResponse) -> None:
        status = response.status
        if status >= _SERVER_ERROR or status == _TOO_MANY:
            raise WebLostError(f"{self._final} answered with status {status}; try again later")
        if status not in (_WHOLE, _PART, _BEYOND):
            raise WebError(f"{self._final} answered with status {status}; check the address")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise WebError(f"{self._final} compresses the file on its way; switch that off for .zb files")
        if status == _WHOLE:
            length = response.headers.get("Content-Length", "")
            self._note(response, int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None)

    def _ask(self, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        url = self._final
        headers = {**self._headers, **headers}
        headers |= url.authorization
        while True:
            if self._clock() >= self._deadline_s:
                raise WebError(f"there was no time left for {self._url}; try again on a better connection")
            try:
                with warnings.catch_warnings():
                    # What is not checked here is said in the log already.
                    warnings.simplefilter("ignore", InsecureRequestWarning)
                    return self._connection(url).urlopen(
                        "GET", url.path, headers=headers, redirect=False, preload_content=False, decode_content=False
                    )
            except (HTTPError, OSError) as error:
                cause = innermost(error)
                if not isinstance(cause, ssl.SSLCertVerificationError) or url.origin in self._unchecked:
                    raise WebLostError(_why(url, cause)) from error
                self._do_without_checking(url, cause)

    def _do_without_checking(self, url: WebUrl, cause: ssl.SSLCertVerificationError) -> None:
        problem = f"the certificate of {url.host}:{url.port} cannot be checked ({printable(cause.verify_message, 100)})"
        if url.credentials:
            raise WebError(f"{problem}: it gets no password from this device; use an address without one")
        self._say(f"{problem}; going on, because the bundle's own signatures are what counts")
        self._unchecked.add(url.origin)
        self.close()

    def _connection(self, url: WebUrl) -> urllib3.HTTPConnectionPool:
        if self._pool is None or self._pool_for != url.origin:
            self.close()
            timeout = urllib3.Timeout(connect=self._limits.connect_s, read=self._limits.read_s)
            if url.scheme == "http":
                pool = urllib3.HTTPConnectionPool(url.host, url.port, maxsize=1, timeout=timeout, retries=False)
            else:
                # A password is never sent where the certificate was not checked.
                verify = url.origin not in self._unchecked or bool(url.credentials)
                pool = urllib3.HTTPSConnectionPool(
                    url.host, url.port, maxsize=1, timeout=timeout, retries=False,
                    ssl_context=self._trust.checked if verify else self._trust.unchecked,
                    cert_reqs="CERT_REQUIRED" if verify else "CERT_NONE", assert_hostname=None if verify else False,
                )  # fmt: skip
            self._pool, self._pool_for = pool, url.origin
        return self._pool

    def _chunks(self, response: urllib3.BaseHTTPResponse, most_bytes: int) -> Iterator[bytes]:
        left, pace = most_bytes, Pace(self._limits, self._deadline_s, self._clock)
        while left > 0:
            try:
                chunk = response.read1(min(left, self._limits.chunk_bytes))
            except (HTTPError, OSError) as error:
                raise WebLostError(_why(self._final, innermost(error))) from error
            if not chunk:
                return
            self.received_bytes += len(chunk)
            left -= len(chunk)
            yield chunk
            self._alive()
            self._throttle.received(len(chunk))
            try:
                pace.received(len(chunk))
            except DmsUnreachableError as error:
                late = self._clock() >= self._deadline_s
                raise (WebError if late else WebLostError)(f"{self._url}: {error}") from error


def _put_back(response: urllib3.BaseHTTPResponse) -> None:
    """Let the connection serve the next part, if its answer was read to the end."""
    if response.length_remaining == 0:
        response.release_conn()
    else:
        response.close()


def _why(url: WebUrl, cause: BaseException) -> str:
    detail = printable(getattr(cause, "strerror", None) or type(cause).__name__, 100)
    return f"cannot read {url} ({detail}); check the address and the network"


def innermost(error: BaseException) -> BaseException:
    """Return what urllib3's errors are wrapped around: the operating system's or the TLS library's own error."""
    for _ in range(8):
        values = (getattr(error, "reason", None), *error.args, error.__cause__)
        inner = [value for value in values if isinstance(value, BaseException)]
        if not inner:
            break
        error = inner[0]
    return error


class WebStream:
    """A file on a web server as a stream that can go forward in steps; small reads are bundled where that is cheap."""

    READ_AHEAD_BYTES: Final = 16 * 1024

    def __init__(self, web: WebFile) -> None:
        self._web = web
        self._at = 0
        self._held = b""
        self._held_at = 0

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes; fewer at the file's end only. Raises what WebFile raises."""
        start, end = self._at, self._at + size
        held_end = self._held_at + len(self._held)
        if not (self._held_at <= start and end <= held_end):
            # The first read is exact: whether the server has ranges is not known yet, and going back is dear if not.
            ahead = self.READ_AHEAD_BYTES if start and not self._web.whole else 0
            self._held = b"".join(self._web.read(start, max(end, start + ahead)))
            self._held_at = start
        data = self._held[start - self._held_at : end - self._held_at]
        self._at += len(data)
        return data

    def skip(self, size: int) -> None:
        """Go forward; going beyond the end is noticed by the next read."""
        self._at += size
