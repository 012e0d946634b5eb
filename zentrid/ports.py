"""The few things zentrid's core and commands need from the world. Adapters and test doubles implement these protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zentrid.core.bootstate import BootState
    from zentrid.core.names import SlotName


@dataclass(frozen=True)
class Release:
    """What `/etc/zentri/release.json` on the verified root says about the running image."""

    product: str
    version: str
    built: str
    """UTC, ISO 8601 with `Z`."""
    board: str
    zentri_version: str
    development: bool


@dataclass(frozen=True)
class Identity:
    """What manufacture wrote into the identity partition (`/identity`)."""

    uuid: str
    mac: str
    """Six upper-case hexadecimal pairs with colons."""
    dms_host: str
    dms_port: int
    made: str = ""
    """Since when the device's certificate is valid (UTC, ISO 8601): no clock of this device can be earlier. May be empty."""


@dataclass(frozen=True)
class SlotInfo:
    """One slot as it is on the disk now."""

    slot: SlotName
    version: str | None
    """None: empty, or its FIT cannot be read."""
    running: bool
    tries_left: int
    good: bool
    state: str
    """`running`, `fallback`, `next`, `empty`, `bad` or `safe-mode`."""


@dataclass(frozen=True)
class UpdateOptions:
    """The switches of the `ota` command."""

    force: bool = False
    version: str | None = None
    source: str | None = None
    """A local path or an address of a `.zb` file (sideload); None: from the DMS."""
    check_only: bool = False
    by_itself: bool = False
    """Nobody asked for it (`dms.auto`): what was taken back before is not installed again, and nothing restarts at once."""
    goes_on: bool = False
    """The next step on the way to `version`, after a release that had to be installed first."""


@dataclass(frozen=True)
class UpdateProgress:
    """One line of news from a running update; the last one has `done` set."""

    state: str
    percent: int
    message: str
    received_bytes: int = 0
    done: bool = False
    ok: bool = True
    reboot: bool = False
    """Set on the last one when the new release waits for a reboot."""
    result: int = 0
    """`dms.ota_result`: 0 none, 1 updated, 2 no update required, 3 failure, 4 no network set, 5 join failed, 6 no DMS,
    7/8/9 it said 403/400/404."""
    reason: str = ""
    """On a last one that is not `ok`: one word for programs."""


@dataclass(frozen=True)
class Frame:
    """One place in a program: what a symbol file turns into a function and a line."""

    module: str
    """Path of the program or library on the device."""
    build_id: str
    """The ELF file's GNU build-id, lower-case hexadecimal; empty when it has none."""
    address: int
    """Address inside the ELF file (as in its symbol table), not in memory."""


@dataclass(frozen=True)
class AppExit:
    """How the boot application ended by itself."""

    name: str
    exit_code: int | None
    """None: ended by a signal."""
    signal: int | None
    uptime_s: float
    """How long it had run."""
    frames: tuple[Frame, ...] = ()
    """Innermost first, where a signal left a core."""
    output: str = ""
    """The last lines that it printed, at most 4 KiB."""
    reason: str = ""
    """How it ended, or why it cannot be started, as one sentence."""


class FaultSink(Protocol):
    """Takes exceptions: counts, keeps, reports them."""

    async def record(self, cause: str, detail: str, *, frames: Sequence[Frame] = (), text: str = "") -> None:
        """Record one exception of this boot. `detail`: one short line; `text`: traceback, panic or output, cut to 4 KiB.

        Never raises: what cannot be written is logged.
        """


class BootStateStore(Protocol):
    """The two copies of the boot state on raw sectors."""

    def read(self) -> BootState:
        """Return the newest valid copy; raise BootStateLostError if both are bad."""

    def write(self, state: BootState) -> BootState:
        """Write `state` with the next `seq` to the older copy, flush, read back, compare; return what was written.

        Raises BootStateWriteError when what is on the disk afterwards is not what was to be written.
        """

    def update(self, change: Callable[[BootState], BootState]) -> BootState:
        """Read, change and write under one lock; lost copies count as the defaults. Raises BootStateWriteError."""


class SlotInspector(Protocol):
    """Tells what the slots hold."""

    def slots(self) -> Sequence[SlotInfo]:
        """Return a, b and r in that order, fresh from the disk."""


class Dms(Protocol):
    """The device's own dealings with its Device Management Server, apart from updates. Each may raise DmsError."""

    async def claim(self, user_or_product: str, secret: str) -> str:
        """Claim this device; return the server's sentence."""

    async def activate(self, product: str) -> str:
        """Bind this device to a product; return the server's sentence."""

    async def status(self) -> dict[str, str]:
        """Return what the server knows: claimed, owner, product, tag, server time."""


class Updates(Protocol):
    """The update manager, as the command language sees it."""

    def run(self, options: UpdateOptions) -> AsyncIterator[UpdateProgress]:
        """Run one update to its end; yields progress, the last with `done`. Raises UpdateBusyError."""

    async def cancel(self) -> bool:
        """Cancel a running update; False when none runs or it is past cancelling."""

    @property
    def state(self) -> str:
        """The update state now (`idle`, `checking`, …)."""

    @property
    def available(self) -> str:
        """The release that was found but not installed yet; empty: none is known."""

    @property
    def percent(self) -> int:
        """Progress of the running update, 0 to 100."""

    @property
    def last_result(self) -> int:
        """`dms.ota_result` of the last update."""


class Power(Protocol):
    """Restarting the board."""

    async def reboot(self, why: str) -> None:
        """Clear `running` in the boot state, stop cleanly and restart."""
