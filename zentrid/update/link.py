"""The supervisor's line to its update worker: what both updates and other dealings with the server are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from zentrid.bundle.manifest import Manifest
from zentrid.core.bootstate import BootState
from zentrid.core.events import DeviceEvent
from zentrid.core.fit import FitConfiguration
from zentrid.core.names import MIB, SlotName
from zentrid.core.update import Capacity
from zentrid.ports import BootStateStore, Identity, Release, SlotInspector
from zentrid.update.contact import Contact
from zentrid.update.durable import Hook, no_hook
from zentrid.update.errors import DmsRefusedError, DmsUnreachableError, WorkerDiedError, printable
from zentrid.update.itemtrial import Checks
from zentrid.update.protocol import Answer, Delivered, Message, Op, Refused, Request

ASK_SILENCE_S: Final = 90.0
INSTALL_SILENCE_S: Final = 400.0
"""Longer than the worker's own patience with a server that does not answer."""
ASK_TOTAL_S: Final = 80.0
INSTALL_TOTAL_S: Final = 3600.0
"""As `transport.Limits` has it."""
_LARGEST_FRAME_BYTES: Final = 2 * MIB
"""What may arrive between two news of the worker, generously."""
_LARGEST_UPDATE_BYTES: Final = 256 * MIB
"""More than a slot can take."""


class BootStateAccess(BootStateStore, Protocol):
    """A boot-state store that can change the state in one step."""

    def update(self, change: Callable[[BootState], BootState]) -> BootState:
        """Read, apply `change`, write and verify; raises BootStateWriteError."""


class SlotAccess(SlotInspector, Protocol):
    """What installing needs to know about the slots."""

    @property
    def running(self) -> SlotName:
        """The slot that runs."""

    def device(self, label: str) -> Path:
        """Return the device of the partition `label`; raises ZentriError."""

    def is_running_partition(self, label: str) -> bool:
        """Tell, independently of `running`, whether the running root file system is on the partition `label`."""

    def capacity(self, slot: SlotName) -> Capacity:
        """Return what the slot can take."""

    def configuration(self, slot: SlotName) -> FitConfiguration | None:
        """Return what the slot's FIT says."""

    def kernel_bytes(self, slot: SlotName) -> int:
        """Return the length of the slot's FIT by its own header; 0: there is none."""


class WorkerRun(Protocol):
    """A worker at work."""

    def messages(self) -> AsyncIterator[Message]:
        """Yield what it says, an Answer last; raises the UpdateError that it failed with."""

    def stop(self) -> None:
        """End it at once."""

    async def close(self) -> None:
        """Wait for its end."""


class WorkerLauncher(Protocol):
    """Starts workers."""

    async def start(self, request: Request, fds: Sequence[int], silence_s: float) -> WorkerRun:
        """Start a worker that inherits `fds`; it is ended when it says nothing for `silence_s`."""


@dataclass(frozen=True)
class Paths:
    """Where things are."""

    identity_dir: Path = Path("/identity")
    data_dir: Path = Path("/data/zentri")
    """Holds `journal.json`, `outbox/`, `items/` and `tuf/`."""

    @property
    def journal(self) -> Path:
        """The update journal."""
        return self.data_dir / "journal.json"

    @property
    def items(self) -> Path:
        """The folder for applications and files of bundles."""
        return self.data_dir / "items"

    @property
    def outbox(self) -> Path:
        """The folder of reports."""
        return self.data_dir / "outbox"

    @property
    def spool(self) -> Path:
        """What an interrupted download leaves to go on from."""
        return self.data_dir / "ota"

    @property
    def tuf(self) -> Path:
        """The signed metadata's folder."""
        return self.data_dir / "tuf"


async def _no_objection(_manifest: Manifest) -> str | None:
    return None


@dataclass(frozen=True)
class Parts:
    """Everything that updating is built from."""

    release: Release
    identity: Identity
    boot_state: BootStateAccess
    slots: SlotAccess
    launcher: WorkerLauncher
    server: Callable[[], tuple[str, int]]
    """Host and port of the DMS, as the settings are now."""
    paths: Paths = field(default_factory=Paths)
    rate_limit_kib_s: Callable[[], int] = lambda: 0
    """`ota.rate_limit`; 0: none."""
    budget_bytes: Callable[[], int] = lambda: 0
    """`ota.budget`: what one update may receive from the network over all its runs; 0: no limit."""
    pre_install: Callable[[Manifest], Awaitable[str | None]] = _no_objection
    """Asked before anything is written; a sentence is a refusal."""
    post_install: Callable[[Manifest], Awaitable[str | None]] = _no_objection
    """Asked when everything is written and verified, before it is activated; a sentence is a refusal."""
    checks: Checks = field(default_factory=Checks)
    """What judges applications and files on trial."""
    utc: Callable[[], datetime] = lambda: datetime.now(UTC)
    verify_fit: bool = True
    """Check that kernel and rootfs belong together; off only where no FIT is used."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Fields of `transport.Limits` that differ from the default."""
    retries: Mapping[str, float] = field(default_factory=dict)
    """Fields of `payloads.Retries` that differ from the default."""
    contact: Contact = field(default_factory=Contact)
    """The regular contact with the server, and what its commands do."""
    tell: Callable[[DeviceEvent], None] = lambda _event: None
    """Hears of every change of state."""
    network_trouble: Callable[[], DmsUnreachableError | None] = lambda: None
    """Asked when the server cannot be reached: the reason on this side of the cable. May block briefly."""
    report_progress: bool = False
    """Tell the server of the steps in between too, not of outcomes only."""
    hook: Hook = no_hook
    """Called before each durable step; for tests of power cuts."""


class WorkerLink:
    """Runs workers and knows whether the server was reached since the supervisor started."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.reached = False
        """The server answered at least once, be it with a refusal."""
        self._one_at_a_time = asyncio.Lock()

    def request(self, op: Op, **values: Any) -> Request:  # noqa: ANN401
        """Return a request with everything that is the same for all."""
        parts = self.parts
        host, port = parts.server()
        limits = dict(parts.limits)
        if op == "install":
            rate = parts.rate_limit_kib_s() * 1024.0
            limits.setdefault("max_rate_bytes_s", rate)
            if rate:  # the owner wants it slow: that must not end it
                limits.setdefault("total_s", INSTALL_TOTAL_S + _LARGEST_UPDATE_BYTES / rate)
        else:
            limits.setdefault("total_s", ASK_TOTAL_S)
        return Request(
            op=op,
            identity_dir=str(parts.paths.identity_dir),
            host=host,
            port=port,
            uuid=parts.identity.uuid,
            version=parts.release.version,
            tuf_dir=str(parts.paths.tuf),
            spool_dir=str(parts.paths.spool) if op == "install" else "",
            built=parts.release.built,
            limits=limits,
            retries=dict(parts.retries),
            **values,
        )

    @property
    def install_silence_s(self) -> float:
        """How long a worker that installs may say nothing: as long as a frame may take at the owner's limit."""
        rate = self.parts.rate_limit_kib_s() * 1024.0
        return INSTALL_SILENCE_S + (_LARGEST_FRAME_BYTES / rate if rate else 0.0)

    async def ask(
        self,
        request: Request,
        *,
        fds: Sequence[int] = (),
        started: Callable[[WorkerRun], None] = lambda _run: None,
        delivered: Callable[[str], Awaitable[None]] | None = None,
        refused: Callable[[str, int, str], Awaitable[None]] | None = None,
    ) -> Answer:
        """Run a worker to its answer. `started` gets it, to be able to stop it; `delivered` each report that arrived.

        `refused` gets each report that the server refused for its content, with status and sentence.

        One such worker at a time: they share the metadata folder, and memory is short. Raises UpdateError.
        """
        async with self._one_at_a_time:
            run = await self.parts.launcher.start(request, fds, ASK_SILENCE_S)
            try:
                started(run)
                async for message in run.messages():
                    if isinstance(message, Answer):
                        self._contact(request)
                        return message
                    if isinstance(message, Delivered) and delivered is not None:
                        self._contact(request)
                        await delivered(message.report_id)
                    if isinstance(message, Refused) and refused is not None:
                        self._contact(request)
                        await refused(message.report_id, message.status, message.sentence)
            except DmsRefusedError:
                self._contact(request)
                raise
            finally:
                await run.close()
        raise WorkerDiedError("the update worker ended without an answer; see the log")

    def _contact(self, request: Request) -> None:
        if request.online:
            self.reached = True


def text_of(values: Mapping[str, Any], name: str) -> str:
    """Return a value of an answer as one line of text; empty for none."""
    value = values.get(name)
    return "" if value is None else printable(str(value))
