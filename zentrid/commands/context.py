"""What commands work with: facts about this device, the ports to its parts, and its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from zentrid.commands.updaterun import UpdateRunner
from zentrid.core.apps import AppInfo
from zentrid.core.items import ItemSet
from zentrid.core.names import SlotName
from zentrid.core.uploads import DoorNews
from zentrid.core.variables import Values
from zentrid.errors import ZentriError
from zentrid.eventbus import EventBus
from zentrid.ports import BootStateStore, Dms, Identity, Power, Release, SlotInspector, UpdateProgress, Updates


class Settings(Protocol):
    """The variables in RAM, and their way to flash and back."""

    @property
    def values(self) -> Values:
        """The values in RAM."""

    async def save(self) -> None:
        """Write the saved variables to flash, durably; raises SettingsSaveError."""

    async def reload(self) -> tuple[str, ...]:
        """Replace the saved variables by what flash holds; returns a sentence for each thing that was wrong there."""


class Clock(Protocol):
    """The time."""

    def utc(self) -> datetime:
        """Return the time now, in UTC."""

    def uptime_s(self) -> float:
        """Return the seconds since the board started."""


class NetworkFacts(NamedTuple):
    """The addresses in use; empty where there is none."""

    ip: str
    netmask: str
    gateway: str
    dns: str


class Host(Protocol):
    """What the operating system tells; may block briefly, so it is asked off the event loop."""

    def memory_available_bytes(self) -> int:
        """Return how much memory could be had without swapping."""

    def network(self) -> NetworkFacts | None:
        """Return the addresses in use; None if there is no network."""


class Applications(Protocol):
    """The boot application and the packages that could be one."""

    @property
    def name(self) -> str:
        """What the boot application is called; empty: none is set."""

    def list(self) -> Sequence[AppInfo]:
        """Return all packages and the boot application, by name; may block briefly."""

    def log_lines(self, count: int) -> Sequence[str]:
        """Return the last lines of the application's log, oldest first; may block briefly."""

    async def start(self) -> str:
        """Start the boot application if it does not run; return a sentence. Raises AppError."""

    async def stop_by_hand(self) -> str:
        """End the boot application until it is started again; return a sentence. Raises AppError."""

    async def restart(self) -> str:
        """End the boot application and start it anew; return a sentence. Raises AppError."""


class Door(Protocol):
    """The upload door while it is open."""

    token: str
    """Who has it may send one bundle."""
    port: int
    path: Path
    """Where the bundle lies when it is there."""

    def news(self) -> AsyncIterator[DoorNews]:
        """Yield what happens at the door, `received` last; raises UploadError if it closes without a bundle."""

    async def tell(self, news: UpdateProgress) -> None:
        """Let whom sent the bundle know how its installation goes."""

    async def close(self) -> None:
        """Close the door and remove the bundle."""


class Doors(Protocol):
    """Opens the upload door."""

    async def open(self) -> Door:
        """Open it; raises UploadError."""


async def _nobody_marks() -> str:
    raise ZentriError("Nothing here could mark this boot good.")


@dataclass
class Context:
    """Everything that commands may touch."""

    release: Release
    identity: Identity
    settings: Settings
    boot_state: BootStateStore
    slots: SlotInspector
    dms: Dms
    updates: Updates
    power: Power
    clock: Clock
    host: Host
    apps: Applications
    uploads: Doors
    safe_mode: bool = False
    safe_mode_reason: str = "Max faults exceeded"
    """Why the device is in safe mode, for the console's greeting."""
    running_slot: SlotName = "a"
    dms_facts: dict[str, str] = field(default_factory=dict)
    """What the DMS last said: `claimed` (0/1), `owner`, `product`, `tag`, `time`; and `last_contact`."""
    boot_health: Callable[[], tuple[bool, str]] = lambda: (False, "the supervisor has just started")
    """Whether this boot was marked good, and a sentence about it."""
    mark_good: Callable[[], Awaitable[str]] = _nobody_marks
    """Marks this boot good at once and returns a sentence; raises ZentriError with what is wrong."""
    held_items: Callable[[], ItemSet | None] = lambda: None
    """The applications and files that bundles brought to the running slot; may block briefly."""
    events: EventBus = field(default_factory=EventBus)
    """What happens on the device, for whoever follows."""
    update_runner: UpdateRunner = field(init=False)

    def __post_init__(self) -> None:
        self.update_runner = UpdateRunner(self.updates, self.power, self.reboots_after_update)

    def reboots_after_update(self) -> bool:
        """Tell whether an installed update restarts the board by itself."""
        return self.settings.values.text("ota.reboot") == "auto"

    def version_line(self) -> str:
        """Return product, version, build time, Zentri version and board on one line."""
        r = self.release
        return f"{r.product}-{r.version}, {r.built}, Zentri-{r.zentri_version}, Board:{r.board}"

    def dms_server(self) -> tuple[str, int]:
        """Return host and port of the DMS: the ones that were set, else the ones from manufacture."""
        values = self.settings.values
        return values.text("dms.host") or self.identity.dms_host, values.number("dms.port") or self.identity.dms_port

    def utc_text(self) -> str:
        """Return the time now as ISO 8601 with `Z`."""
        return self.clock.utc().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def note_contact(self, **facts: str) -> None:
        """Remember what the DMS just said."""
        self.dms_facts.update(facts)
        self.dms_facts["last_contact"] = self.utc_text()
