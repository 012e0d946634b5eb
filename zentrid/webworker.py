"""Asks a web server: a process without rights that meets strangers, so that the supervisor does not.

`python3 -m zentrid.webworker` reads a line of JSON and what is to be sent from standard input. On standard output it writes one
line of JSON, the head, and then the answer's bytes. Exit status 0: the answer is whole; else the last line of standard error
says what was wrong. It ends with whoever reads it.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - for names of servers: without rights it may not be readable any more
import json
import os
import resource
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import urllib3
from urllib3.exceptions import HTTPError

from zentrid.adapters.rights import become, user_to_become
from zentrid.core.text import printable
from zentrid.core.webrequest import MAX_REQUEST_LINE_BYTES, MAX_S, Head, WebRequest
from zentrid.core.weburl import MAX_REDIRECTS, UrlError, WebUrl, parse_url
from zentrid.update.errors import UpdateError
from zentrid.update.transport import Limits, Pace
from zentrid.update.web import WebError, innermost

MAX_ADDRESS_SPACE_BYTES: Final = 512 * 1024 * 1024
MAX_CERTIFICATES_BYTES: Final = 256 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_LIMITS: Final = Limits(total_s=MAX_S, min_rate_bytes_s=1)


def certificates(path: Path) -> str:
    """Return a file of certificates unparsed; nothing if there is none, or it is no text."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_CERTIFICATES_BYTES).decode("ascii")
    except (OSError, UnicodeError):
        return ""


def trusting(*pems: str) -> ssl.SSLContext:
    """Return a context that knows the system's authorities and those in `pems`; a text that holds none is left out."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    for pem in filter(None, pems):
        with suppress(ssl.SSLError):
            context.load_verify_locations(cadata=pem)
    return context


class Fetch:
    """One request and its answer. Every call may raise WebError or UrlError."""

    def __init__(self, request: WebRequest, context: ssl.SSLContext, limits: Limits = _LIMITS) -> None:
        self._request = request
        self._context = context
        self._limits = limits
        self._deadline_s = time.monotonic() + limits.total_s
        self._url = parse_url(request.url)

    def head(self, body: bytes) -> Head:
        """Ask, follow redirects, and return how the answer begins."""
        for _ in range(MAX_REDIRECTS + 1):
            self._response = self._ask(body)
            location = self._response.headers.get("Location", "")
            if self._request.method != "GET" or self._response.status not in _REDIRECTS or not location:
                break
            self._response.close()
            self._url = self._url.redirected(location)
        else:
            raise WebError(f"{self._url} leads elsewhere more than {MAX_REDIRECTS} times; use the page's own address")
        length = self._response.headers.get("Content-Length", "")
        known = length.isascii() and length.isdigit() and len(length) < 15
        self._length_bytes = int(length) if known else None
        return Head(self._response.status, self._length_bytes)

    def body(self) -> Iterator[bytes]:
        """Yield the answer's bytes."""
        received, pace = 0, Pace(self._limits, self._deadline_s, time.monotonic)
        while True:
            try:
                chunk = self._response.read1(_CHUNK_BYTES)
                pace.received(len(chunk))
            except (HTTPError, OSError) as error:
                detail = printable(str(getattr(innermost(error), "strerror", None) or type(innermost(error)).__name__))
                raise WebError(f"{self._url} broke off after {received} bytes ({detail}); try again") from error
            if not chunk:
                break
            received += len(chunk)
            yield chunk
        if self._length_bytes is not None and received != self._length_bytes:
            raise WebError(f"{self._url} broke off after {received} of {self._length_bytes} bytes; try again")

    def _ask(self, body: bytes) -> urllib3.BaseHTTPResponse:
        url, request = self._url, self._request
        headers = {"User-Agent": request.user_agent, "Accept-Encoding": "identity"}
        if request.method == "POST":
            headers["Content-Type"] = request.content_type
        headers |= url.authorization
        try:
            return self._pool(url).urlopen(
                request.method, url.path, body=body if request.method == "POST" else None, headers=headers,
                redirect=False, preload_content=False, decode_content=False,
            )  # fmt: skip
        except (HTTPError, OSError) as error:
            raise WebError(_why(url, innermost(error))) from error

    def _pool(self, url: WebUrl) -> urllib3.HTTPConnectionPool:
        timeout = urllib3.Timeout(connect=self._limits.connect_s, read=self._limits.read_s)
        if url.scheme == "http":
            return urllib3.HTTPConnectionPool(url.host, url.port, maxsize=1, timeout=timeout, retries=False)
        return urllib3.HTTPSConnectionPool(
            url.host, url.port, maxsize=1, timeout=timeout, retries=False, ssl_context=self._context
        )


def _why(url: WebUrl, cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"{url} is not checked by any authority that this device knows ({printable(cause.verify_message[:100])}); "
            "send the authority's certificate as the file ca.pem"
        )
    detail = printable(str(getattr(cause, "strerror", None) or type(cause).__name__)[:100])
    return f"cannot reach {url} ({detail}); check the address and the network"


def run(request: WebRequest, body: bytes, context: ssl.SSLContext, out: BinaryIO) -> int:
    """Carry out `request`; return the exit status."""
    try:
        fetch = Fetch(request, context)
        head = fetch.head(body)
    except (UrlError, UpdateError) as error:
        out.write(Head(error=str(error)).to_line())
        return 1
    out.write(head.to_line())
    out.flush()
    try:
        for chunk in fetch.body():
            out.write(chunk)
            out.flush()
    except UpdateError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def drop_rights(name: str) -> None:
    """Become a user that may do nothing, and limit what a runaway could take. Raises WebError rather than staying root."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, MAX_ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    os.umask(0o077)
    try:
        user = user_to_become(name)
        if user is not None:
            become(user)
    except OSError as error:
        raise WebError(f"the request cannot be sent without giving up rights ({error})") from error


def main() -> int:
    """Read the request from standard input and carry it out; return the exit status."""
    request = WebRequest(**json.loads(sys.stdin.buffer.readline(MAX_REQUEST_LINE_BYTES)))
    body = sys.stdin.buffer.read(request.body_bytes)
    # Read while they can be read, parsed without rights: anybody who may send a file may have written ca.pem.
    pems = [certificates(path) for path in (Path(request.identity_dir) / "dms_ca.crt", Path(request.ca_file))]
    try:
        drop_rights(request.user)
    except WebError as error:
        sys.stdout.buffer.write(Head(error=str(error)).to_line())
        return 1
    return run(request, body, trusting(*pems), sys.stdout.buffer)


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):
        sys.exit(main())
    os._exit(1)
