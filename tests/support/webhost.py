"""A web server for one file, with every bad habit that a test asks for."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class WebHost:
    """Serves `content` at `/new.zb` (and whatever `redirects` leads to it)."""

    content: bytes = b""
    ranges: bool = True
    etag: str = '"1"'
    redirects: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Each answer with a body takes one off: only that many bytes are sent, then the connection is closed."""
    status: dict[int, int] = field(default_factory=dict)
    """Number of the request (from 0) → the status that it gets instead."""
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    trickle_pause_s: float = 0.0
    length_known: bool = True
    change_after: int = -1
    """From this request on the file is another one."""
    claimed_part: str = ""
    """Sent as Content-Range whatever was asked for."""
    requests: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/new.zb"

    @contextmanager
    def running(self, certificate: Path | None = None) -> Iterator[WebHost]:
        host = self

        class Handler(_Handler):
            web = host

        server = _Server(("127.0.0.1", self.port), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            self.scheme = "https"
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    web: WebHost

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        web = self.web
        number = len(web.requests)
        web.requests.append({name.title(): value for name, value in self.headers.items()})
        web.paths.append(self.path)
        if self.path in web.redirects:
            self._empty(302, {"Location": web.redirects[self.path]})
        elif number in web.status:
            self._empty(web.status[number])
        elif not self.path.startswith("/new.zb"):
            self._empty(404)
        else:
            changed = 0 <= web.change_after <= number
            self._file(web.content[:-1] + b"x" if changed else web.content, '"2"' if changed else web.etag)

    def do_POST(self) -> None:
        """Send back what was sent."""
        web = self.web
        web.requests.append({name.title(): value for name, value in self.headers.items()})
        web.paths.append(self.path)
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _empty(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, data: bytes, etag: str) -> None:
        web = self.web
        start, end, status = 0, len(data), 200
        if web.ranges and (wanted := self.headers.get("Range")):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            if int(first) >= len(data):
                self._empty(416, {"Content-Range": f"bytes */{len(data)}"})
                return
            start, end, status = int(first), min(int(last) + 1, len(data)), 206
        self.send_response(status)
        if web.length_known:
            self.send_header("Content-Length", str(10**12 if web.endless else end - start))
        else:
            self.close_connection = True
        if status == 206:
            self.send_header("Content-Range", web.claimed_part or f"bytes {start}-{end - 1}/{len(data)}")
        if etag:
            self.send_header("ETag", etag)
        for name, value in web.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            self._body(data[start:end])

    def _body(self, part: bytes) -> None:
        web = self.web
        if web.cuts:
            part = part[: web.cuts.pop(0)]
            self.close_connection = True
        while web.endless:
            self.wfile.write(bytes(65536))
        step = 100 if web.trickle_pause_s > 0.1 else 4096
        for start in range(0, len(part), step):
            self.wfile.write(part[start : start + step])
            web.sent_bytes += len(part[start : start + step])
            time.sleep(web.trickle_pause_s)
