"""What the supervisor and its update worker say to each other: one JSON request in, JSON lines out.

The supervisor does not trust the worker, which parses what comes from outside: lines are bounded and typed here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from zentrid.update.errors import (
    DmsRefusedError,
    DmsUnreachableError,
    UpdateError,
    UpdateRefusedError,
    WorkerDiedError,
    printable,
)

MAX_REQUEST_BYTES: Final = 256 * 1024
MAX_LINE_BYTES: Final = 2 * 1024 * 1024
"""A manifest of 256 KiB in JSON, every character of it escaped."""

_MOST_BYTES: Final = 1 << 48

WORKER_USER: Final = "zentri-ota"

Op = Literal["claim", "activate", "status", "check", "report", "install"]


@dataclass(frozen=True)
class SourceSpec:
    """A partition that may have useful blocks."""

    fd: int
    data_blocks: int | None = None
    tree_start_block: int | None = None
    root_hash: str = ""
    checked_fd: int | None = None
    """The same data, read through the kernel's verity check."""


@dataclass(frozen=True)
class ItemSpec:
    """One payload to install."""

    name: str
    root_hash: str
    size_bytes: int
    fd: int
    with_tree: bool
    sources: tuple[SourceSpec, ...] = ()
    old: SourceSpec | None = None
    """What the target holds until now."""
    kernel_checks: bool = False
    """The supervisor reads it back."""


@dataclass(frozen=True)
class UnpackSpec:
    """A payload of an application, and the empty folder that it goes to."""

    name: str
    version: str
    entry: str | None
    kind: str
    size_bytes: int
    fd: int
    folder: str


@dataclass(frozen=True)
class InstallSpec:
    """What to write where."""

    version: str
    slot: str
    items: tuple[ItemSpec, ...]
    verify_fit: bool = True
    """Check that kernel and rootfs belong together; off only for boards without a FIT, and without firmware."""
    unpack: tuple[UnpackSpec, ...] = ()
    """What is done with verified payloads of applications."""
    repair: bool = False
    """A read-back has failed: believe nothing of the targets, look at every block."""
    budget_bytes: int = 0
    """How many bytes the update may receive over all its runs; 0: no limit."""


@dataclass(frozen=True)
class Request:
    """Everything that one run of the worker needs. File descriptors are numbers of inherited ones."""

    op: Op
    identity_dir: str
    host: str
    port: int
    uuid: str
    version: str
    user: str = WORKER_USER
    """The user to become when started as root; if it does not exist nothing is done."""
    body: dict[str, Any] = field(default_factory=dict)
    """For claim, activate, check and status: what is sent to the server, apart from the UUID."""
    reports: tuple[dict[str, Any], ...] = ()
    tuf_dir: str = ""
    spool_dir: str = ""
    """Where an installation keeps what it would otherwise have to fetch again; empty: nowhere."""
    built: str = ""
    """When the running image was built: no earlier time is believed."""
    bundle_fd: int | None = None
    """For check and install: a bundle file instead of the server."""
    bundle_url: str = ""
    """For check and install: a bundle on the web instead of the server. May hold a password."""
    install: InstallSpec | None = None
    limits: dict[str, float] = field(default_factory=dict)
    """Fields of `transport.Limits` that differ from the default."""
    retries: dict[str, float] = field(default_factory=dict)
    """Fields of `payloads.Retries` that differ from the default."""

    @property
    def online(self) -> bool:
        """Whether the server is asked."""
        return self.bundle_fd is None and not self.bundle_url

    def to_bytes(self) -> bytes:
        """Return the request as the worker reads it."""
        return json.dumps(asdict(self)).encode()


def parse_request(raw: bytes) -> Request:
    """Return the request that the supervisor wrote. Raises ValueError, KeyError or TypeError for anything else."""
    value = json.loads(raw)
    install = value.pop("install", None)
    value["reports"] = tuple(value.get("reports", ()))
    request = Request(**value)
    if install is None:
        return request
    items = tuple(
        ItemSpec(
            **{
                **item,
                "sources": tuple(SourceSpec(**source) for source in item["sources"]),
                "old": SourceSpec(**item["old"]) if item["old"] else None,
            }
        )
        for item in install["items"]
    )
    unpack = tuple(UnpackSpec(**spec) for spec in install["unpack"])
    return Request(**{**value, "install": InstallSpec(**{**install, "items": items, "unpack": unpack})})


@dataclass(frozen=True)
class Progress:
    """News of an installation."""

    phase: str
    """`downloading` or `verifying`."""
    percent: int
    received_bytes: int
    note: str = ""
    """What the worker waits for, in words; empty: nothing."""


@dataclass(frozen=True)
class Delivered:
    """One report is on the server."""

    report_id: str


@dataclass(frozen=True)
class Refused:
    """The server will never take one report: its content is not to its liking."""

    report_id: str
    status: int
    sentence: str


@dataclass(frozen=True)
class Answer:
    """The worker has done what it was asked for."""

    values: dict[str, Any]

    def text(self, name: str) -> str | None:
        """Return a text of the answer; None if it is not there or no text."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None


Message = Progress | Delivered | Refused | Answer


def progress_line(news: Progress) -> bytes:
    """Return the line for a progress message."""
    return _line("progress", asdict(news))


def delivered_line(report_id: str) -> bytes:
    """Return the line for a report that arrived."""
    return _line("delivered", {"report_id": report_id})


def refused_line(report_id: str, error: DmsRefusedError) -> bytes:
    """Return the line for a report that the server refused for its content."""
    return _line("refused", {"report_id": report_id, "status": error.status, "sentence": error.message})


def answer_line(values: dict[str, Any]) -> bytes:
    """Return the line that ends a successful run."""
    return _line("answer", {"values": values})


def failure_line(error: UpdateError) -> bytes:
    """Return the line that ends a failed run."""
    values: dict[str, Any] = {"kind": "other", "reason": error.reason, "sentence": str(error)}
    if isinstance(error, DmsRefusedError):
        values |= {"kind": "refused", "status": error.status, "sentence": error.message}
    elif isinstance(error, DmsUnreachableError):
        values["kind"] = "unreachable"
    return _line("failure", values)


def _line(kind: str, values: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, **values}).encode() + b"\n"


def parse_line(line: bytes) -> Message:
    """Return what the worker said; a failure is raised as the error that it was. Raises WorkerDiedError for nonsense."""
    try:
        value = json.loads(line)
        kind = value["type"]
        if kind == "progress":
            percent = min(max(int(value["percent"]), 0), 100)
            note = printable(str(value.get("note", "")), 80)
            received_bytes = min(max(int(value["received_bytes"]), 0), _MOST_BYTES)
            return Progress(printable(str(value["phase"]), 20), percent, received_bytes, note)
        if kind == "delivered":
            return Delivered(str(value["report_id"])[:64])
        if kind == "refused":
            sentence = printable(str(value["sentence"]))
            return Refused(str(value["report_id"])[:64], int(value["status"]), sentence)
        if kind == "answer" and isinstance(value["values"], dict):
            return Answer(value["values"])
        if kind == "failure":
            failure = _error(value)
        else:
            raise ValueError(kind)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise WorkerDiedError("the update worker said something that makes no sense; see the log") from error
    raise failure


def _error(value: dict[str, Any]) -> UpdateError:
    sentence = printable(str(value["sentence"]), 600)
    if value["kind"] == "refused":
        return DmsRefusedError(int(value["status"]), sentence)
    if value["kind"] == "unreachable":
        return DmsUnreachableError(sentence)
    return UpdateRefusedError(printable(str(value["reason"]), 40), sentence)
