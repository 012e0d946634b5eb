"""A small server that speaks the device door: mutual TLS, real certificates, and every bad habit that a test asks for."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.fleet import PRODUCT, Fleet


@dataclass
class Habits:
    """What goes wrong, and where. Prefixes are of the path after `/device/v1/`."""

    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Prefix → status and message."""
    cuts: list[int] = field(default_factory=list)
    """Each payload answer takes one off: only that many bytes are sent, then the connection is closed."""
    busy: list[int] = field(default_factory=list)
    """Each request for a patch takes one off and gets 503 with that `Retry-After` (seconds)."""
    etags: bool = True
    """Payloads have an ETag, and `If-Range` is heeded."""
    endless: str = ""
    trickle: str = ""
    trickle_pause_s: float = 0.02
    by_base: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Base root hash → target root hash → the patch stream between them."""
    refuse_ids: set[str] = field(default_factory=set)
    """Reports with these ids are answered with `refuse_status`."""
    refuse_status: int = 400
    lose_answers: int = 0
    """So many reports are taken without a word: the connection is closed."""
    repeat_commands: bool = False
    """A command stays in the status although it was answered."""
    unpublished: set[str] = field(default_factory=set)
    """Versions that the server says it does not have when one of them is asked for."""
    withheld: set[str] = field(default_factory=set)
    """Versions that the server has, but not for this device."""
    raw: dict[str, bytes] = field(default_factory=dict)
    """Path → exactly this answer."""
    promised: dict[str, int] = field(default_factory=dict)
    """Prefix → a Content-Length; nothing follows it, and the connection is closed."""
    eager: bool = False
    """An update is offered although the device says that it runs that version."""
    hang_up: bool = False
    """Every connection is closed after its first answer, which does not say so."""
    whole: bool = False
    """Ranges are ignored."""
    tamper: Callable[[str, bytes], bytes] = lambda _path, data: data
    before_payload: Callable[[], None] = lambda: None
    after_piece: Callable[[int], None] = lambda _size: None
    """Called with the size of each piece of a payload that was sent."""
    before_check: Callable[[], object] = lambda: None
    recovers: Callable[[], bool] = lambda: False
    """Asked at each refusal: from the first True on, nothing is refused."""


class Doorman:
    """The server; `requests` has what was asked, `reports` what was reported."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.habits = Habits()
        self.requests: list[tuple[str, str, str]] = []
        self.reports: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.claimed = True
        self.payload_bytes = 0
        self.connections = 0
        self.offer: str | None = None
        self.port = 0
        self.hold = threading.Event()
        """What a habit may wait for."""

    @contextmanager
    def running(self) -> Iterator[Doorman]:
        doorman = self

        class Handler(_Handler):
            door = doorman

        server = _Server(("127.0.0.1", self.port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.fleet.folder / "dms.pem")
        context.load_verify_locations(self.fleet.folder / "device_ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def asked(self, prefix: str) -> list[tuple[str, str, str]]:
        return [request for request in self.requests if request[1].startswith(f"/device/v1/{prefix}")]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    door: Doorman

    def setup(self) -> None:
        """Count it."""
        super().setup()
        self.door.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def _serve(self, body: bytes) -> None:
        url = urlsplit(self.path)
        path = url.path.removeprefix("/device/v1/")
        door, habits = self.door, self.door.habits
        self.close_connection = self.close_connection or habits.hang_up
        door.requests.append((self.command, self.path, self.headers.get("Range", "")))
        for prefix, (status, message) in habits.refuse.items():
            if path.startswith(prefix) and not habits.recovers():
                self._json({"result": "fail", "message": message}, status)
                return
        if (
            length := next((value for prefix, value in habits.promised.items() if path.startswith(prefix)), None)
        ) is not None:
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.close_connection = True
        elif path in habits.raw:
            self._send(habits.raw[path], 200)
        elif habits.endless and path.startswith(habits.endless):
            self._forever()
        elif habits.trickle and path.startswith(habits.trickle):
            self._trickle()
        elif path.startswith("payload/"):
            habits.before_payload()
            self._payload(path, parse_qs(url.query)["base"][0])
        elif self.command == "POST":
            self._post(path, json.loads(body))
        elif path == "status":
            assert parse_qs(url.query)["uuid"] == [self.headers["X-Zentri-UUID"]]
            owner = "maker" if door.claimed else None
            known = {"claimed": door.claimed, "owner": owner, "product": PRODUCT, "tag": "release", "time": "2026"}
            self._json({**known, "commands": door.commands})
        else:
            folder, _, name = path.partition("/")
            files = door.fleet.metadata if folder == "metadata" else door.fleet.targets
            self._file(path, files.get(name))

    def _post(self, path: str, body: dict[str, Any]) -> None:
        door = self.door
        if path == "report" and body["id"] in door.habits.refuse_ids:
            self._json({"result": "fail", "message": "bad report"}, door.habits.refuse_status)
        elif path == "report":
            if body["id"] not in [report["id"] for report in door.reports]:
                door.reports.append(body)
            if not door.habits.repeat_commands:
                door.commands = [command for command in door.commands if command["id"] != body["id"]]
            if door.habits.lose_answers:
                door.habits.lose_answers -= 1
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._json({"result": "ok"})
        elif path == "check":
            door.habits.before_check()
            door.checks.append(body)
            self._check(body)
        elif path == "claim":
            right = body.get("password") == "right" or body.get("token") == "right"
            door.claimed = door.claimed or right
            if right:
                self._json({"result": "ok", "message": "device claimed"})
            else:
                self._json({"result": "fail", "message": "wrong user name or password"}, 403)
        else:
            self._json({"result": "ok", "message": f"product {body['product']} activated"})

    def _check(self, body: dict[str, Any]) -> None:
        door = self.door
        if not door.claimed:
            self._json({"result": "fail", "message": "device not claimed"}, 403)
            return
        version = body["want"] or door.offer
        if body["want"] in door.habits.unpublished:
            self._json({"result": "fail", "message": f"{PRODUCT} has no published version {version}"}, 404)
            return
        if (
            version is None
            or version in door.habits.withheld
            or (version == body["version"] and not body["force"] and not body["safemode"] and not door.habits.eager)
        ):
            self._json({"result": "ok", "update": None})
            return
        target = f"{PRODUCT}/{version}/manifest.json"
        self._json({"result": "ok", "update": {"product": PRODUCT, "version": version, "target": target}})

    def _payload(self, path: str, base: str) -> None:
        root = path.removeprefix("payload/")
        data = self.door.habits.by_base.get(base, {}).get(root) or self.door.fleet.payloads.get(root)
        if data is None:
            self._file(path, None)
            return
        if base != "none" and self.door.habits.busy:
            self._json({"result": "fail", "message": "the patch is being made"}, 503, self.door.habits.busy.pop(0))
            return
        data = self.door.habits.tamper(path, data)
        etag = f'"{root}-{base}-{hashlib.sha256(data).hexdigest()[:16]}"'
        changed = self.door.habits.etags and self.headers.get("If-Range", etag) != etag
        start, end, status = 0, len(data), 200
        if (wanted := self.headers.get("Range")) and not self.door.habits.whole and not changed:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end, status = int(first), int(last) + 1 if last else len(data), 206
        part = data[start:end]
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        if self.door.habits.etags:
            self.send_header("ETag", etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if self.door.habits.cuts:
            part = part[: self.door.habits.cuts.pop(0)]
            self.close_connection = True
        for at in range(0, len(part), 65536):
            piece = part[at : at + 65536]
            self.wfile.write(piece)
            self.door.payload_bytes += len(piece)
            self.door.habits.after_piece(len(piece))
        if self.close_connection:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _file(self, path: str, data: bytes | None) -> None:
        if data is None:
            self._json({"result": "fail", "message": "there is no such thing"}, 404)
            return
        self._send(self.door.habits.tamper(path, data), 200)

    def _json(self, value: dict[str, Any], status: int = 200, retry_after_s: int | None = None) -> None:
        self._send(json.dumps(value).encode(), status, retry_after_s)

    def _send(self, data: bytes, status: int, retry_after_s: int | None = None) -> None:
        self.send_response(status)
        if retry_after_s is not None:
            self.send_header("Retry-After", str(retry_after_s))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _forever(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while True:
            self.wfile.write(bytes(65536))

    def _trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while True:
            self.wfile.write(b" ")
            time.sleep(self.door.habits.trickle_pause_s)
