"""Sending a signed bundle to a DMS, over its API, with a token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import urllib3

from scripts.bundle_tool.release import read_metadata, read_roots
from zentrid.bundle.zbfile import Bundle, open_bundle
from zentrid.errors import ZentriError

CONNECT_TIMEOUT_S = 10
SEND_TIMEOUT_S = 60
"""Longest silence while sending."""
ANSWER_TIMEOUT_S = 600
"""The server checks every block before it answers."""
MAX_ANSWER_BYTES = 1024 * 1024

Progress = Callable[[int, int], object]
"""Called with bytes sent and bytes in all."""


class PublishError(ZentriError):
    """The server did not take the bundle; `status` is its HTTP status, 0 if there was no answer."""

    reason = "publish_failed"

    def __init__(self, sentence: str, status: int = 0) -> None:
        self.status = status
        super().__init__(sentence)


@dataclass(frozen=True)
class Published:
    """What the server has now."""

    product: str
    version: str
    sent: bool
    """False: it had this bundle already."""
    tags: tuple[str, ...]


class Api:
    """The few requests that publishing needs. Answers are bounded; the token never appears in an error."""

    def __init__(self, server: str, token: str, ca: Path | None) -> None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise PublishError(f"--server {server!r}: write http://HOST[:PORT] or https://HOST[:PORT]")
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise PublishError("the token holds blanks or characters that no token has; copy it again, in one piece")
        self._base = server.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S)
        self._pool = urllib3.PoolManager(
            timeout=timeout, retries=False, ca_certs=None if ca is None else str(ca), num_pools=1
        )

    def ask(self, method: str, path: str, body: bytes | BinaryIO | None = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of an answer. Raises PublishError if there is none."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            answer = self._pool.request(
                method,
                self._base + path,
                body=body,
                headers={**self._headers, **named},
                preload_content=False,
                redirect=False,
            )
            data = answer.read(MAX_ANSWER_BYTES)
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise PublishError(f"{self._base} does not answer ({_short(error)}); is the DMS running there?") from None
        try:
            return answer.status, json.loads(data) if data else {}
        except ValueError:
            return answer.status, {}

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()


class Told:
    """A file of known length that tells how much of it was read."""

    def __init__(self, stream: BinaryIO, size_bytes: int, progress: Progress | None) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self._progress = progress
        self._sent = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes."""
        data = self._stream.read(size)
        self._sent += len(data)
        if self._progress is not None:
            self._progress(self._sent, self._size_bytes)
        return data


def publish_bundle(
    path: Path,
    server: str,
    token: str,
    *,
    tags: tuple[str, ...] = (),
    ca: Path | None = None,
    progress: Progress | None = None,
) -> Published:
    """Send the bundle unless the server has it, then give it the tags. Repeating it does no harm.

    `ca`: PEM of the authority that signed the server's certificate, if it is a private one. Raises BundleError, PublishError or
    OSError.
    """
    bundle = open_bundle(path)
    if not bundle.head.signed:
        raise PublishError(f"{path}: is not signed; sign it with scripts/bundle sign")
    product, version = bundle.manifest.product, str(bundle.manifest.version)
    api = Api(server, token, ca)
    try:
        sent = not _has(api, bundle)
        if sent:
            _send(api, path, progress)
        found: tuple[str, ...] = ()
        for tag in tags:
            status, answer = api.ask(
                "POST",
                f"/api/v1/bundles/{product}/{version}/tag",
                json.dumps({"tag": tag}).encode(),
                Content_Type="application/json",
            )
            require_ok(status, answer, f"tag {tag!r}")
            found = tuple(answer.get("tags") or (tag,))
        return Published(product, version, sent, found)
    finally:
        api.close()


def publish_metadata(
    folder: Path, server: str, token: str, *, products: tuple[str, ...] = (), ca: Path | None = None
) -> bool:
    """Send roots, targets and these products' signatures of a fleet's public folder; return whether the server had older ones.

    Raises ReleaseError, PublishError or OSError. Repeating it does no harm.
    """
    names = [*read_roots(folder), "targets.json", *(f"{product}.json" for product in products)]
    files = {name: read_metadata(folder / name).decode("utf-8", "replace") for name in names}
    api = Api(server, token, ca)
    try:
        body = json.dumps({"files": files}).encode()
        status, answer = api.ask("POST", "/api/v1/metadata", body, Content_Type="application/json")
        require_ok(status, answer, "metadata")
        return bool(answer.get("newer"))
    finally:
        api.close()


def _has(api: Api, bundle: Bundle) -> bool:
    """Ask before sending megabytes: a wrong token, an unknown product and a version that is taken show here."""
    status, answer = api.ask("GET", f"/api/v1/bundles/{bundle.manifest.product}/{bundle.manifest.version}")
    if status == 404:
        return False
    require_ok(status, answer, "bundle")
    if answer.get("manifest_sha256") != hashlib.sha256(bundle.manifest_bytes).hexdigest():
        raise PublishError(
            f"the server has another {bundle.manifest.product} {bundle.manifest.version}; build it with a new version"
        )
    return True


def _send(api: Api, path: Path, progress: Progress | None) -> None:
    size_bytes = path.stat().st_size
    with path.open("rb") as stream:
        status, answer = api.ask(
            "POST",
            "/api/v1/bundles",
            Told(stream, size_bytes, progress),  # type: ignore[arg-type]  # only read() is used
            Content_Type="application/octet-stream",
            Content_Length=str(size_bytes),
        )
    require_ok(status, answer, "bundle")


def require_ok(status: int, answer: Any, what: str) -> None:  # noqa: ANN401
    """Raise PublishError unless the server said yes; `what` it was about is for the sentence."""
    if 200 <= status < 300 and isinstance(answer, dict):
        return
    message = answer.get("message") or answer.get("detail") if isinstance(answer, dict) else None
    if not isinstance(message, str):
        message = "check address, token and product"
    raise PublishError(f"the server refused the {what} with status {status}: {message[:500]}", status)


def _short(error: Exception) -> str:
    return str(error).rpartition(": ")[2][:200] or type(error).__name__
