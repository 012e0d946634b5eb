"""The worker's one way to the server: HTTPS with both certificates, and a bound on everything that a server could abuse.

Python's own HTTP client, because importing a larger library takes a board half a second, at every contact with the server.
Blocking on purpose: the worker is a short-lived process of its own. Certificates are loaded when the context is made, which
happens before privileges are dropped; everything after that reads from the network only.
"""

from __future__ import annotations

import json
import select
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from socket import socket
from typing import Any, Final

from zentrid.update.errors import DmsError, DmsRefusedError, DmsUnreachableError, printable
from zentrid.update.tlstime import EndOnlyContext

MAX_JSON_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_STATUS_OK, _STATUS_PARTIAL, _STATUS_UNAVAILABLE = 200, 206, 503
_MAX_RETRY_AFTER_S: Final = 3600.0
_MAX_ETAG_CHARS: Final = 256
_LEAST_CHUNK_BYTES: Final = 512


class ConnectionLostError(DmsUnreachableError):
    """The connection broke, or was too slow, in the middle of an answer; what was received may be kept."""

    reason = "connection_lost"


class OutOfTimeError(DmsUnreachableError):
    """The time for everything together is over: there is no point in trying again now."""

    reason = "out_of_time"


class StreamChangedError(DmsUnreachableError):
    """The server has other bytes under this name than before: what was received of them belongs to nothing any more."""

    reason = "stream_changed"


class ServerBusyError(DmsRefusedError):
    """The server answered 503 and said when to ask again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(_STATUS_UNAVAILABLE, message)
        self.retry_after_s = retry_after_s


@dataclass
class Known:
    """What is known of a stream on the server over several connections."""

    etag: str = ""
    """As the server named it; empty: nothing was received yet, or the server has no such names."""


@dataclass(frozen=True)
class Limits:
    """Bounds on the server's behaviour."""

    connect_s: float = 10.0
    """Longest wait for a connection, TLS included."""
    read_s: float = 20.0
    """Longest wait for the next byte."""
    min_rate_bytes_s: float = 512.0
    """An answer slower than this over `rate_window_s` is given up."""
    rate_window_s: float = 20.0
    total_s: float = 3600.0
    """Everything that one worker does on the network."""
    max_rate_bytes_s: float = 0.0
    """A limit of the owner's (`ota.rate_limit`); 0: none."""

    @property
    def chunk_bytes(self) -> int:
        """The most that is read at once: at a low limit little, so that the wait for it is short."""
        if not self.max_rate_bytes_s:
            return _CHUNK_BYTES
        return int(min(max(self.max_rate_bytes_s / 4, _LEAST_CHUNK_BYTES), _CHUNK_BYTES))


@dataclass(frozen=True)
class Endpoint:
    """Where the server is and who asks."""

    host: str
    port: int
    uuid: str
    version: str


def client_context(identity_dir: Path) -> ssl.SSLContext:
    """Return a TLS 1.3 context with the device's certificate that trusts the DMS's own CA alone; see `tlstime` for dates.

    Raises DmsUnreachableError when the identity is not usable.
    """
    context = EndOnlyContext()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(identity_dir / "dms_ca.crt")
        context.load_cert_chain(identity_dir / "device.crt", identity_dir / "device.key")
    except (OSError, ssl.SSLError) as error:
        raise DmsUnreachableError(
            f"the device's certificate cannot be used ({printable(str(error), 100)}); provision the device again"
        ) from error
    return context


class Throttle:
    """Keeps a session below the owner's limit, over all its answers together: what came too early is waited for."""

    def __init__(self, max_rate_bytes_s: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._rate = max_rate_bytes_s
        self._clock = clock
        self._sleep = sleep
        self._paid_until_s = clock()
        """Until then the limit has nothing left to give."""

    def received(self, size: int) -> None:
        """Wait until `size` bytes more are within the limit. Time that was not used is not saved up."""
        if not self._rate:
            return
        now_s = self._clock()
        self._paid_until_s = max(self._paid_until_s, now_s) + size / self._rate
        self._sleep(self._paid_until_s - now_s)


class Pace:
    """Watches one answer's speed: too slow is an error."""

    def __init__(self, limits: Limits, deadline_s: float, clock: Callable[[], float]) -> None:
        self._min_rate = limits.min_rate_bytes_s
        if limits.max_rate_bytes_s:
            # What the owner's limit slows down is not the server's fault.
            self._min_rate = min(self._min_rate, limits.max_rate_bytes_s / 4)
        self._limits = limits
        self._deadline_s = deadline_s
        self._clock = clock
        self._window_start_s = clock()
        self._window_bytes = 0

    def received(self, size: int) -> None:
        """Count `size` bytes more. Raises ConnectionLostError if the server is too slow or the time is over."""
        now_s = self._clock()
        self._window_bytes += size
        if now_s >= self._deadline_s:
            raise DmsUnreachableError(
                "the server took longer than an update may take; try again on a better connection"
            )
        elapsed_s = now_s - self._window_start_s
        if elapsed_s >= self._limits.rate_window_s:
            if self._window_bytes < self._min_rate * elapsed_s:
                raise ConnectionLostError(
                    f"the server sends only {self._window_bytes / elapsed_s:.0f} bytes a second; try again later"
                )
            self._window_start_s, self._window_bytes = now_s, 0


class _Connection:
    """One connection at a time, kept as long as the server keeps it. Raises HTTPException or OSError."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, limits: Limits) -> None:
        self._limits = limits
        self._headers = {
            "X-Zentri-UUID": endpoint.uuid, "User-Agent": f"zentrid/{endpoint.version}", "Accept-Encoding": "identity",
        }  # fmt: skip
        self._http = HTTPSConnection(endpoint.host, endpoint.port, timeout=limits.connect_s, context=context)

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> HTTPResponse:
        """Send a request; return its answer, of which nothing but the head was read."""
        sock: socket | None = self._http.sock
        if sock is not None and _has_news(sock):
            # Nothing was asked, so it can only be the server's goodbye.
            self._http.close()
            sock = None
        if sock is None:
            self._http.connect()
            self._http.sock.settimeout(self._limits.read_s)
        try:
            self._http.request(method, path, body, {**self._headers, **headers})
            return self._http.getresponse()
        except BaseException:
            self._http.close()
            raise

    def done_with(self, response: HTTPResponse) -> None:
        """Let go of an answer: a connection with unread bytes cannot be used again, any other serves the next request."""
        if response.isclosed() or response.length == 0:
            response.close()
        else:
            self.close()

    def close(self) -> None:
        """Close it; the next request makes another one."""
        self._http.close()


def _has_news(sock: socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Transport:
    """A session with the device door. Every call may raise DmsUnreachableError or DmsRefusedError."""

    def __init__(
        self,
        endpoint: Endpoint,
        context: ssl.SSLContext,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or Limits()
        self.received_bytes = 0
        """Body bytes received so far."""
        self.on_received: Callable[[int], None] = lambda _size: None
        """Called with the size of every piece of a body, after it was handed on; may raise to end everything."""
        self._endpoint = endpoint
        self._clock = clock
        self._deadline_s = clock() + self.limits.total_s
        self._throttle = Throttle(self.limits.max_rate_bytes_s, clock, time.sleep)
        self._connection = _Connection(endpoint, context, self.limits)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON, return the JSON object of the answer."""
        raw = self._bytes("POST", path, MAX_JSON_BYTES, json.dumps(body).encode())
        return _json_object(raw)

    def get_json(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`."""
        return _json_object(self._bytes("GET", path, MAX_JSON_BYTES))

    def get_bytes(self, path: str, max_bytes: int) -> bytes:
        """Return the whole answer; one longer than `max_bytes` is refused."""
        return self._bytes("GET", path, max_bytes)

    @contextmanager
    def stream(
        self, path: str, start: int, end: int | None = None, known: Known | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Open the bytes `start` to `end` (exclusive; None: to the end) of `path`; yields an iterator of chunks.

        The chunks together are never longer than asked for, but may be shorter. ConnectionLostError: it broke; what came
        before is right. A server that ignores the range is an error unless `start` is 0. With `known`, StreamChangedError
        is raised when the server has other bytes than before; it learns their ETag.
        """
        headers = {"Range": f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"}
        if known is not None and known.etag and not known.etag.startswith("W/"):
            headers["If-Range"] = known.etag
        response = self._open("GET", path, None, headers)
        try:
            if known is not None:
                self._check_known(response, known)
            self._check_range(response, start)
            yield self._chunks(response, None if end is None else end - start)
        finally:
            self._connection.done_with(response)

    def _check_known(self, response: HTTPResponse, known: Known) -> None:
        etag = printable(response.headers.get("ETag", ""), _MAX_ETAG_CHARS)
        if known.etag and etag != known.etag:
            raise StreamChangedError("the server has made the payload anew; it is started again")
        known.etag = etag

    def _check_range(self, response: HTTPResponse, start: int) -> None:
        if response.status == _STATUS_PARTIAL:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise DmsUnreachableError("the server sent another part of the payload than was asked for; try again")
        elif response.status != _STATUS_OK or start:
            raise DmsUnreachableError(f"the server does not serve parts of payloads (status {response.status})")

    def _bytes(self, method: str, path: str, max_bytes: int, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        response = self._open(method, path, body, headers)
        try:
            data = b"".join(self._chunks(response, max_bytes + 1))
        finally:
            self._connection.done_with(response)
        if len(data) > max_bytes:
            raise DmsUnreachableError(
                f"the server sent more than the {max_bytes} bytes that {path.split('?')[0]} may have"
            )
        return data

    def _open(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> HTTPResponse:
        if self._clock() >= self._deadline_s:
            raise OutOfTimeError("there was no time left for the server; try again on a better connection")
        try:
            response = self._connection.ask(method, path, body, headers)
        except (HTTPException, OSError) as error:
            raise DmsUnreachableError(self._why(error)) from error
        if response.status not in (_STATUS_OK, _STATUS_PARTIAL):
            try:
                raise self._refusal(response)
            finally:
                self._connection.done_with(response)
        return response

    def _refusal(self, response: HTTPResponse) -> DmsError:
        try:
            raw = b"".join(self._chunks(response, MAX_JSON_BYTES))
            message = _json_object(raw).get("message")
        except DmsError:
            message = None
        if not isinstance(message, str) or not message:
            message = f"the server answered with status {response.status}"
        retry_after = response.headers.get("Retry-After", "")
        if response.status == _STATUS_UNAVAILABLE and retry_after.isascii() and retry_after.isdigit():
            return ServerBusyError(message, min(float(retry_after[:9]), _MAX_RETRY_AFTER_S))
        return DmsRefusedError(response.status, message)

    def _chunks(self, response: HTTPResponse, most_bytes: int | None) -> Iterator[bytes]:
        chunk_bytes = self.limits.chunk_bytes
        left = chunk_bytes if most_bytes is None else most_bytes
        pace = Pace(self.limits, self._deadline_s, self._clock)
        while left > 0:
            try:
                # read1 returns what is there: a server that trickles is noticed at each byte, not after a full buffer.
                chunk = response.read1(min(left, chunk_bytes))
            except (HTTPException, OSError, ValueError) as error:
                raise ConnectionLostError(self._why(error)) from error
            if not chunk:
                if response.length:
                    raise ConnectionLostError("the server ended its answer early; try again later")
                return
            self.received_bytes += len(chunk)
            left = left if most_bytes is None else left - len(chunk)
            yield chunk
            self.on_received(len(chunk))
            self._throttle.received(len(chunk))
            pace.received(len(chunk))

    def _why(self, error: Exception) -> str:
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            detail = printable(error.verify_message, 100)
            return f"the server at {where} is not the one that this device trusts ({detail}); check dms.host"
        detail = printable(getattr(error, "strerror", None) or type(error).__name__, 100)
        return f"cannot reach the server at {where} ({detail}); check the network, dms.host and dms.port"


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DmsUnreachableError("the server's answer is not what a DMS answers; check dms.host and dms.port")
    return value
