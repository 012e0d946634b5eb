"""The update worker: a short-lived child that meets the outside world and has no rights to do harm there.

`python3 -m zentrid.update.worker` reads one request from standard input and writes JSON lines to standard output. What needs
rights (keys, block devices) is read or inherited before it becomes an unprivileged user; what comes from outside is touched
only afterwards. It ends, and its memory with it, when the request is done or its supervisor is gone.
"""

from __future__ import annotations

import os
import resource
import ssl
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast
from urllib.parse import urlencode

from zentrid.adapters.rights import become, user_to_become
from zentrid.bundle.tree import blocks_for
from zentrid.core.names import SlotName
from zentrid.core.version import parse_version
from zentrid.update import protocol
from zentrid.update.errors import DmsRefusedError, PayloadError, UpdateError, WorkerDiedError, printable
from zentrid.update.install import ItemJob, check_fit, install
from zentrid.update.payloads import DmsPayloads, Payloads, Retries
from zentrid.update.protocol import InstallSpec, ItemSpec, Request, SourceSpec
from zentrid.update.sources import Source
from zentrid.update.spool import Spool
from zentrid.update.transport import Endpoint, Limits, Transport, client_context

if TYPE_CHECKING:
    from zentrid.update.web import WebFile, WebTrust

# What only some requests need is imported where it is used: it costs time and memory on a slow board.

PROGRESS_INTERVAL_S: Final = 0.2
_TRIES_AT_FIRST: Final = 3
MAX_ADDRESS_SPACE_BYTES: Final = 768 * 1024 * 1024
_REFUSED_FOR_CONTENT: Final = (400, 413, 422)
"""Sending the same report again would be refused again."""

Emit = Callable[[bytes], None]


@dataclass
class Secrets:
    """What must be read while there are still the rights to."""

    tls: ssl.SSLContext | None
    root: bytes
    web: WebTrust | None = None


def main() -> int:
    """Carry out the request on standard input; return the exit status."""
    request = protocol.parse_request(sys.stdin.buffer.read(protocol.MAX_REQUEST_BYTES + 1))
    output = sys.stdout.buffer

    def emit(line: bytes) -> None:
        output.write(line)
        output.flush()

    return run(request, emit, drop=drop_privileges)


def run(request: Request, emit: Emit, drop: Callable[[Request], None] = lambda _request: None) -> int:
    """Carry out `request`; every outcome is emitted. Returns 0 when it was done."""
    try:
        secrets = load_secrets(request)
        drop(request)
        emit(protocol.answer_line(_Worker(request, secrets, emit).carry_out()))
    except UpdateError as error:
        emit(protocol.failure_line(error))
        return 1
    except BrokenPipeError:
        return 1
    except Exception as error:
        traceback.print_exc()
        sentence = f"the update worker failed inside ({type(error).__name__}); see the log"
        emit(protocol.failure_line(WorkerDiedError(sentence)))
        return 1
    return 0


def load_secrets(request: Request) -> Secrets:
    """Read certificate, key and root of trust; make the metadata folder. Raises UpdateError."""
    identity = Path(request.identity_dir)
    tls = client_context(identity) if request.online else None
    root = b""
    if request.spool_dir:
        with suppress(OSError):  # an update that cannot keep anything works all the same
            Path(request.spool_dir).mkdir(parents=True, exist_ok=True)
    if request.op == "check":
        try:
            root = (identity / "root.json").read_bytes()
            Path(request.tuf_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PayloadError(f"the update's folders cannot be used ({printable(str(error), 120)})") from error
    if not request.bundle_url:
        return Secrets(tls, root)
    from zentrid.update.web import web_trust

    return Secrets(tls, root, web_trust(identity))


def drop_privileges(request: Request) -> None:
    """Become the worker's own user, if this is root; limit what a runaway could take. Raises UpdateError if it cannot."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, MAX_ADDRESS_SPACE_BYTES))
    os.umask(0o077)
    try:
        user = user_to_become(request.user)
    except OSError as error:
        raise WorkerDiedError(f"the update worker cannot give up its rights ({error})") from error
    if user is None:
        return
    for folder in filter(None, (request.tuf_dir, request.spool_dir)):
        if Path(folder).is_dir():
            os.chown(folder, user.pw_uid, user.pw_gid, follow_symlinks=False)
    become(user)


class _Worker:
    def __init__(self, request: Request, secrets: Secrets, emit: Emit) -> None:
        self._request = request
        self._secrets = secrets
        self._emit = emit
        self._transport: Transport | None = None
        self._web: WebFile | None = None
        self._last: tuple[str, float] = ("downloading", 0.0)
        self._percent = 0

    def carry_out(self) -> dict[str, Any]:
        """Do what the request asks for and return the answer's values."""
        request = self._request
        try:
            match request.op:
                case "claim" | "activate":
                    return {"message": self._ask(request.op).get("message", "")}
                case "status":
                    query = urlencode({"uuid": request.uuid, **request.body})
                    return self._net().get_json(f"/device/v1/status?{query}")
                case "report":
                    return self._report()
                case "check":
                    return self._check()
                case "install":
                    return self._install()
        finally:
            for connection in (self._transport, self._web):
                if connection is not None:
                    connection.close()

    def _web_file(self) -> WebFile:
        from zentrid.core.weburl import UrlError, parse_url
        from zentrid.update.web import WebFile

        request = self._request
        if self._secrets.web is None:
            raise WorkerDiedError("the update worker was not prepared for the web")
        try:
            url = parse_url(request.bundle_url)
        except UrlError as error:
            raise PayloadError(str(error)) from error
        retries = Retries(**cast("dict[str, Any]", request.retries))
        if request.op == "check":
            # Nothing has begun yet, and a person waits to hear that the address is wrong.
            retries = replace(retries, most=min(retries.most, _TRIES_AT_FIRST))
        self._web = WebFile(
            url, self._secrets.web, Limits(**request.limits), retries, user_agent=f"zentrid/{request.version}",
            say=lambda line: print(line, file=sys.stderr), alive=lambda: self._tell(self._last[0], self._percent),
        )  # fmt: skip
        return self._web

    def _net(self) -> Transport:
        request = self._request
        if self._transport is None:
            if self._secrets.tls is None:
                raise WorkerDiedError("the update worker was asked to use the network without a certificate")
            endpoint = Endpoint(request.host, request.port, request.uuid, request.version)
            self._transport = Transport(endpoint, self._secrets.tls, Limits(**request.limits))
        return self._transport

    def _ask(self, name: str) -> dict[str, Any]:
        return self._net().post(f"/device/v1/{name}", {"uuid": self._request.uuid, **self._request.body})

    def _report(self) -> dict[str, Any]:
        for report in self._request.reports:
            try:
                self._net().post("/device/v1/report", {"uuid": self._request.uuid, **report})
            except DmsRefusedError as error:
                if error.status not in _REFUSED_FOR_CONTENT:
                    raise
                # One that the server cannot read must not stop those behind it.
                self._emit(protocol.refused_line(str(report["id"]), error))
                continue
            self._emit(protocol.delivered_line(str(report["id"])))
        return {}

    def _check(self) -> dict[str, Any]:
        # Imported here because the library is large and only checks need it.
        from zentrid.update.metadata import TrustStore, look_for_news, online_manifest, parse_time

        request = self._request
        store = TrustStore(Path(request.tuf_dir), self._secrets.root, parse_time(request.built))
        if not request.online:
            from zentrid.update.sideload import read_head, read_web_head, trusted_manifest

            head = read_web_head(self._web_file()) if request.bundle_fd is None else read_head(request.bundle_fd)
            return {"manifest": trusted_manifest(head, store).decode()}
        answer = self._ask("check")
        update = answer.get("update")
        if update is None:
            # That there is nothing must be as fresh as a release: else it would be the way to hold one back.
            look_for_news(store, self._net())
            return {"message": answer.get("message", "")}
        target = update.get("target") if isinstance(update, dict) else None
        if not isinstance(target, str) or len(target) > 200:
            raise PayloadError("the server named a release in a way that this device does not understand")
        return {"manifest": online_manifest(store, self._net(), target).decode(), "target": target}

    def _install(self) -> dict[str, Any]:
        request, spec = self._request, self._request.install
        if spec is None:
            raise WorkerDiedError("the update worker was not told what to install")
        self._say_begun()
        update = " ".join(item.root_hash for item in spec.items)
        payloads: Payloads
        spool = Spool(None, update)
        if request.bundle_fd is not None:
            # Imported here, as above: what an ordinary update does not need costs it time and memory.
            from zentrid.update.sideload import open_payloads

            payloads = open_payloads(request.bundle_fd)
        elif request.bundle_url:
            from zentrid.update.sideload import WebPayloads

            payloads = WebPayloads(self._web_file())
        else:
            retries = Retries(**cast("dict[str, Any]", request.retries))
            payloads = DmsPayloads(self._net(), retries, preparing=self._tell_preparing)
            spool = Spool(Path(request.spool_dir) if request.spool_dir else None, update, spec.budget_bytes)

            def received(size_bytes: int) -> None:
                spool.count(size_bytes)
                # On a slow connection a header or a frame takes long, and the supervisor ends a worker that is silent.
                self._tell(self._last[0], self._percent)

            self._net().on_received = received
        try:
            install(tuple(_job(item) for item in spec.items), payloads, self._tell, spool, repair=spec.repair)
        finally:
            # What was received counts, however it ends.
            self._emit(protocol.progress_line(protocol.Progress(self._last[0], self._percent, self._received())))
        if spec.verify_fit:
            _check_fit(spec)
        if spec.unpack:
            from zentrid.update.unpack import UnpackJob, unpack

            for each in spec.unpack:
                unpack(UnpackJob(**{**asdict(each), "folder": Path(each.folder)}), os.uname().machine)
        return {"received_bytes": self._received()}

    def _say_begun(self) -> None:
        """Tell the server that it begins, on the way that is open anyway; if it does not hear of it, nothing is lost."""
        if self._request.reports:
            with suppress(UpdateError):
                self._report()

    def _received(self) -> int:
        used: tuple[Transport | WebFile | None, ...] = (self._transport, self._web)
        return sum(connection.received_bytes for connection in used if connection is not None)

    def _tell_preparing(self) -> None:
        note = "the server prepares the update"
        self._emit(protocol.progress_line(protocol.Progress("downloading", 0, self._received(), note)))

    def _tell(self, phase: str, percent: int) -> None:
        now_s = time.monotonic()
        self._percent = percent
        if phase != self._last[0] or now_s - self._last[1] >= PROGRESS_INTERVAL_S:
            self._last = (phase, now_s)
            self._emit(protocol.progress_line(protocol.Progress(phase, percent, self._received())))


def _job(item: ItemSpec) -> ItemJob:
    old = None if item.old is None else _source(item.old)
    sources = tuple(map(_source, item.sources))
    return ItemJob(
        item.name, item.root_hash, item.size_bytes, item.fd, sources, item.with_tree, old, item.kernel_checks
    )


def _source(spec: SourceSpec) -> Source:
    return Source(spec.fd, spec.data_blocks, spec.tree_start_block, spec.root_hash, spec.checked_fd)


def _check_fit(spec: InstallSpec) -> None:
    by_name = {item.name: item for item in spec.items}
    kernel, rootfs = by_name["kernel"], by_name["rootfs"]
    slot = cast("SlotName", spec.slot)
    check_fit(kernel.fd, slot, parse_version(spec.version), rootfs.root_hash, blocks_for(rootfs.size_bytes))


def end(status: int) -> NoReturn:
    """End this process at once: everything is flushed, and Python's own tidying takes a slow board a fifth of a second."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):
        end(main())
    end(1)
