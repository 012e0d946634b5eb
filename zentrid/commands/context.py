"""What commands work with: facts about this device, the ports to its parts, and its settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from zentrid.commands.updaterun import UpdateRunner
from zentrid.core.apps import AppInfo
from zentrid.core.files import FileInfo, FileMeta
from zentrid.core.gpio import Pin
from zentrid.core.items import ItemSet
from zentrid.core.journal import Place
from zentrid.core.names import SlotName
from zentrid.core.network import NetworkError
from zentrid.core.probes import News
from zentrid.core.uploads import DoorNews
from zentrid.core.variables import Values
from zentrid.errors import ZentriError
from zentrid.eventbus import EventBus
from zentrid.ports import BootStateStore, Dms, Identity, Power, Release, SlotInspector, UpdateProgress, Updates
from zentrid.streams import Stream, StreamTable


class Settings(Protocol):
    """The variables in RAM, and their way to flash and back."""

    @property
    def values(self) -> Values:
        """The values in RAM."""

    async def save(self) -> None:
        """Write the saved variables to flash, durably; raises SettingsSaveError."""

    async def save_only(self, name: str) -> None:
        """Write one variable to flash, and leave the others there as they are; raises SettingsSaveError."""

    async def reload(self) -> tuple[str, ...]:
        """Replace the saved variables by what flash holds; returns a sentence for each thing that was wrong there."""


class WebApps(Protocol):
    """Restores the Web App's files."""

    @property
    def status(self) -> str:
        """What is going on, a sentence."""

    async def recover(self, source: str, tell: Callable[[int, str], None], stop: asyncio.Event) -> str:
        """Restore from `dms`, `image`, or (empty) the first of the two that can be had; return what was done.

        `tell` hears of progress; `stop` ends it. Raises ZentriError: what was restored until then stays.
        """


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


class NewFileStream(Stream, Protocol):
    """A file on its way. With its last byte, if its size is known, it is finished by itself."""

    async def finish(self) -> None:
        """Give it its name; one that cannot be kept is gone. Raises FileError."""


class Files(Protocol):
    """The device's files, under names that were checked. Every call may raise FileError."""

    async def list(self) -> Sequence[FileInfo]:
        """Return all files, by name."""

    async def stat(self, name: str) -> FileInfo:
        """Return what is known of a file."""

    async def delete(self, name: str, *, force: bool = False) -> None:
        """Remove a file; an essential one only with `force`."""

    async def open(self, name: str) -> Stream:
        """Open a file for reading."""

    async def create(self, name: str, size_bytes: int | None, meta: FileMeta) -> NewFileStream:
        """Begin a file of so many bytes (None: as many as come); one of that name stays until the new one is whole."""


@runtime_checkable
class HttpAnswer(Stream, Protocol):
    """A request to a web server, and its answer."""

    @property
    def length_bytes(self) -> int | None:
        """How long the answer is, if the server said so."""

    async def status(self) -> int:
        """Send the request if it was not sent yet, and return the answer's status. Raises ZentriError."""


class Web(Protocol):
    """Asks web servers."""

    def open(self, address: str, method: str = "GET", content_type: str = "") -> HttpAnswer:
        """Return a request that is not sent yet. Raises UrlError."""


class Journal(Protocol):
    """The supervisor's log; may block briefly."""

    def tail(self, count: int) -> tuple[Sequence[str], Place]:
        """Return the last `count` lines, oldest first, and the place after them."""

    def news(self, place: Place) -> tuple[Sequence[str], Place]:
        """Return whole lines that came after `place`, and the place after them."""


class Network(Protocol):
    """The one network interface."""

    def trouble(self) -> NetworkError | None:
        """Return why nothing can be reached; None: the network is there. May block briefly."""

    def how(self) -> str:
        """Return where the address in use comes from: `dhcp`, `static`, or `down` without one."""

    def gateway_answers(self, gateway: str) -> bool:
        """Tell whether the gateway is there. Blocks for some seconds at most."""

    @property
    def unconfirmed(self) -> bool:
        """Whether the last change could not be checked, and is taken back unless `confirm` is called in time."""

    def confirm(self) -> None:
        """Keep the last change."""

    async def up(self) -> str:
        """Bring it up as the settings say, unless it is; return the address. Raises NetworkError: see `restart`."""

    async def restart(self) -> str:
        """Let the settings take effect; return the address. Raises NetworkError: then what worked before is in use again."""

    async def down(self) -> None:
        """Take it down. Raises NetworkError."""


class Probes(Protocol):
    """Meets the network in processes without rights. Close what is yielded from when done."""

    def ping(self, host: str, count: int) -> AsyncGenerator[News, None]:
        """Yield the address, then what became of each of `count` packets. Raises ProbeError."""

    def resolve(self, name: str) -> AsyncGenerator[News, None]:
        """Yield the addresses of a name. Raises ProbeError."""


class Gpios(Protocol):
    """The GPIOs. Everything may block briefly, and raises GpioError when one cannot be had."""

    def pins(self) -> Sequence[Pin]:
        """Return all GPIOs as they are now."""

    def pin(self, number: int) -> Pin:
        """Return one GPIO as it is now."""

    def configure(self, number: int, word: str) -> None:
        """Make a GPIO what `word` (see `core.gpio.DIRECTIONS`) says and keep hold of it."""

    def set(self, number: int, *, high: bool) -> None:
        """Drive an output."""


class Setup(Protocol):
    """Set-up mode."""

    @property
    def on(self) -> bool:
        """Whether it is on."""

    @property
    def left_s(self) -> float:
        """How long it still lasts."""

    def start(self) -> None:
        """Begin it, or begin its time anew."""

    def stop(self) -> None:
        """End it."""


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
    files: Files
    web: Web
    journal: Journal
    network: Network
    probes: Probes
    gpios: Gpios
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
    streams: StreamTable = field(default_factory=StreamTable)
    """Open files and connections of all doors."""
    setup: Setup | None = None
    """Set-up mode, where there is a web server."""
    web_app: WebApps | None = None
    """The Web App's files, where they can be restored."""
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
