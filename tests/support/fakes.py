"""In-memory implementations of zentrid's ports, for tests of everything that stands above them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from zentrid.adapters.filestore import FileStore
from zentrid.adapters.filestreams import DeviceFiles
from zentrid.adapters.journal import Journal
from zentrid.adapters.settings import SettingsStore
from zentrid.adapters.uploads import UploadDoors
from zentrid.adapters.webclient import WebClient, WebFiles
from zentrid.commands.context import Context, NetworkFacts
from zentrid.core.apps import AppError, AppInfo
from zentrid.core.bootstate import BootState, BootStateLostError, BootStateWriteError
from zentrid.core.gpio import GpioError, Pin
from zentrid.core.network import NetworkError
from zentrid.core.probes import Found, News, Reply
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import VariableTable
from zentrid.errors import ZentriError
from zentrid.ports import Identity, Release, SlotInfo, UpdateOptions, UpdateProgress

RELEASE = Release("DEMO-VIRT_SENSOR", "1.4.0", "2026-11-01T10:00:00Z", "virt", "1.4.0", development=True)
IDENTITY = Identity("6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d11", "52:54:00:12:34:56", "dms.zentri.local", 8443)
SLOTS = (
    SlotInfo("a", "1.4.0", running=True, tries_left=3, good=True, state="running"),
    SlotInfo("b", None, running=False, tries_left=0, good=False, state="empty"),
    SlotInfo("r", "1.0.0", running=False, tries_left=0, good=True, state="safe-mode"),
)


class MemoryBootState:
    """A boot state store that may be lost or refuse writing."""

    def __init__(self, state: BootState | None = None) -> None:
        self.state: BootState | None = state or BootState()
        self.broken = False

    def read(self) -> BootState:
        """Return the state, or tell that both copies are bad."""
        if self.state is None:
            raise BootStateLostError
        return self.state

    def write(self, state: BootState) -> BootState:
        """Keep the state with the next `seq`."""
        if self.broken:
            raise BootStateWriteError("copy 1 reads back differently")
        self.state = replace(state, seq=(self.state.seq if self.state else 0) + 1)
        return self.state

    def update(self, change: Callable[[BootState], BootState]) -> BootState:
        """Read, change, write."""
        return self.write(change(self.state or BootState()))


class FixedSlots:
    """Slots that never change."""

    def __init__(self, slots: Sequence[SlotInfo] = SLOTS) -> None:
        self.infos = slots

    def slots(self) -> Sequence[SlotInfo]:
        """Return them."""
        return self.infos


class MemoryDms:
    """A DMS that knows one account and one product; `error` is raised by everything while it is set."""

    def __init__(self) -> None:
        self.error: ZentriError | None = None
        self.claimed_by: str | None = None
        self.product: str | None = None
        self.delay_s = 0.0

    async def _answer(self) -> None:
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error

    async def claim(self, user_or_product: str, secret: str) -> str:
        """Claim for user `demo` with password `let me in`."""
        await self._answer()
        if (user_or_product, secret) != ("demo", "let me in"):
            raise ZentriError('{"result":"fail","message":"wrong user name or password"}')
        self.claimed_by = user_or_product
        return "device claimed"

    async def activate(self, product: str) -> str:
        """Bind to a product."""
        await self._answer()
        self.product = product
        return ""

    async def status(self) -> dict[str, str]:
        """Return the server's view."""
        await self._answer()
        return {
            "claimed": str(self.claimed_by is not None).lower(),
            "owner": self.claimed_by or "",
            "product": self.product or "",
            "tag": "release",
            "time": "2026-11-02T00:00:00Z",
        }


class ScriptedUpdates:
    """Updates that go through a script; with `gate` set they wait for it (or for cancelling) before the last item."""

    def __init__(self) -> None:
        self.script: list[UpdateProgress | Exception] = []
        self.gate: asyncio.Event | None = None
        self.asked: list[UpdateOptions] = []
        self.past_cancelling = False
        self.installed = False
        """A release waits for its restart and can be taken back."""
        self.state = "idle"
        self.available = ""
        self.percent = 0
        self.last_result = 0
        self._cancelled = asyncio.Event()
        self._running = False

    async def run(self, options: UpdateOptions) -> AsyncIterator[UpdateProgress]:
        """Yield the script; cancelled: end with a failure that says so."""
        self.asked.append(options)
        self._cancelled.clear()
        self._running = True
        try:
            for position, item in enumerate(self.script):
                if self.gate is not None and position == len(self.script) - 1:
                    await self._wait()
                    if self._cancelled.is_set():
                        yield UpdateProgress("failed", self.percent, "The update was cancelled.", done=True, ok=False)
                        return
                await asyncio.sleep(0)
                if isinstance(item, Exception):
                    raise item
                self.state, self.percent = item.state, item.percent
                yield item
        finally:
            self._running = False

    async def _wait(self) -> None:
        assert self.gate is not None
        waits = [asyncio.create_task(event.wait()) for event in (self.gate, self._cancelled)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def cancel(self) -> bool:
        """Cancel what waits at the gate, or take back what is installed."""
        if self.installed:
            self.installed, self.state = False, "idle"
            return True
        if not self._running or self.past_cancelling:
            return False
        self._cancelled.set()
        return True


class MemoryPower:
    """Counts restarts."""

    def __init__(self) -> None:
        self.reboots: list[str] = []
        self.error: ZentriError | None = None
        self.rebooted = asyncio.Event()

    async def reboot(self, why: str) -> None:
        """Note it."""
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.reboots.append(why)
        self.rebooted.set()


class FixedClock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 2, 12, 0, 0, tzinfo=UTC)
        self.up_s = 61.7

    def utc(self) -> datetime:
        """Return the time it was set to."""
        return self.now

    def uptime_s(self) -> float:
        """Return the uptime it was set to."""
        return self.up_s


class FixedHost:
    """A host with a network, or none."""

    def __init__(self) -> None:
        self.addresses: NetworkFacts | None = NetworkFacts("10.0.2.15", "255.255.255.0", "10.0.2.2", "10.0.2.3")

    def memory_available_bytes(self) -> int:
        """Return 64 MiB."""
        return 64 * 1024 * 1024

    def network(self) -> NetworkFacts | None:
        """Return the addresses."""
        return self.addresses


class MemoryNetwork:
    """A network that comes up when it is told to; `error` is raised by every change while it is set."""

    def __init__(self) -> None:
        self.error: NetworkError | None = None
        self.problem: NetworkError | None = None
        self.gateway_there = True
        self.unconfirmed = False
        self.did: list[str] = []

    def trouble(self) -> NetworkError | None:
        """Return what was set."""
        return self.problem

    def how(self) -> str:
        """Return that it is by DHCP."""
        return "dhcp"

    def gateway_answers(self, gateway: str) -> bool:
        """Return what was set."""
        self.did.append(f"asked {gateway}")
        return self.gateway_there

    def confirm(self) -> None:
        """Remember it."""
        self.unconfirmed = False

    async def _do(self, what: str) -> str:
        await asyncio.sleep(0)
        self.did.append(what)
        if self.error is not None:
            raise self.error
        return "10.0.2.15"

    async def up(self) -> str:
        """Come up."""
        return await self._do("up")

    async def restart(self) -> str:
        """Come up anew."""
        return await self._do("restart")

    async def down(self) -> None:
        """Go down."""
        await self._do("down")


class ScriptedProbes:
    """A network in which every name and every packet meets the same."""

    def __init__(self) -> None:
        self.replies: list[News] = []
        """What becomes of the packets of one ping; empty: each is answered in 1.5 ms."""
        self.found: list[News] = [Found("192.0.2.7")]
        self.error: ZentriError | None = None
        self.asked: list[str] = []
        self.closed = 0

    async def _news(self, asked: str, all_news: Sequence[News]) -> AsyncGenerator[News, None]:
        self.asked.append(asked)
        try:
            for news in all_news:
                await asyncio.sleep(0)
                yield news
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1

    def ping(self, host: str, count: int) -> AsyncGenerator[News, None]:
        """Yield an address and what was set."""
        return self._news(f"ping {host} {count}", [*self.found, *(self.replies or [Reply(1.5)] * count)])

    def resolve(self, name: str) -> AsyncGenerator[News, None]:
        """Yield what was set."""
        return self._news(f"resolve {name}", self.found)


class MemoryGpios:
    """Eight pins; one of them is held by something else."""

    def __init__(self) -> None:
        self.directions = ["in", "out", "in", "out", "in", "in", "in", "in"]
        self.levels = [False] * 8
        self.foreign = {7: "another driver"}
        self.did: list[tuple[int, str]] = []

    def pins(self) -> Sequence[Pin]:
        """Return all."""
        return [self.pin(number) for number in range(8)]

    def pin(self, number: int) -> Pin:
        """Return one."""
        holder = self.foreign.get(number, "")
        return Pin(number, self.directions[number], None if holder else self.levels[number], holder)

    def configure(self, number: int, word: str) -> None:
        """Note it; refuse what something else holds."""
        if number in self.foreign:
            raise GpioError(f"GPIO {number} cannot be used (Device or resource busy).")
        self.did.append((number, word))
        self.directions[number] = "in" if word in ("in", "none") else "out"
        self.levels[number] = word == "high"

    def set(self, number: int, *, high: bool) -> None:
        """Set the level."""
        self.levels[number] = high


class MemoryApps:
    """A boot application that starts and stops at once; `problem` keeps it from running."""

    def __init__(self) -> None:
        self.name = "sample-arm"
        self.running = True
        self.problem: str | None = None
        self.did: list[str] = []
        self.lines = [f"2026-11-02T12:00:00Z app: line {number}" for number in range(100)]

    def list(self) -> Sequence[AppInfo]:
        """Return the boot application and two packages that could be one."""
        state = "running" if self.running else "stopped"
        infos = [AppInfo("broken", "-", "bad", description="app.json: version is missing")]
        if self.name:
            pid, since_s = (77, 60.0) if self.running else (None, None)
            infos.append(AppInfo(self.name, "1.0.0", state, True, pid, since_s, 2, "moves an arm"))
        return [*infos, AppInfo("sample-python", "0.1.0", "off")]

    def log_lines(self, count: int) -> Sequence[str]:
        """Return the last of a hundred lines."""
        return self.lines[-count:]

    async def _do(self, what: str, running: bool) -> str:
        await asyncio.sleep(0)
        if self.problem is not None:
            raise AppError(self.problem)
        self.did.append(what)
        self.running = running
        return f"{self.name}: {what}"

    async def start(self) -> str:
        """Start it."""
        return await self._do("start", running=True)

    async def stop_by_hand(self) -> str:
        """Stop it."""
        return await self._do("stop", running=False)

    async def restart(self) -> str:
        """Start it anew."""
        return await self._do("restart", running=True)


class MemorySetup:
    """Set-up mode that lasts until it is ended."""

    def __init__(self) -> None:
        self.on = False

    @property
    def left_s(self) -> float:
        """Return a quarter of an hour while it is on."""
        return 900.0 if self.on else 0.0

    def start(self) -> None:
        """Begin it."""
        self.on = True

    def stop(self) -> None:
        """End it."""
        self.on = False


class MemoryWebApp:
    """A Web App that is restored at once, or when `gate` is set; `error` is raised while it is set."""

    def __init__(self) -> None:
        self.status = "nothing is being restored"
        self.asked: list[str] = []
        self.error: ZentriError | None = None
        self.gate: asyncio.Event | None = None

    async def recover(self, source: str, tell: Callable[[int, str], None], stop: asyncio.Event) -> str:
        """Tell of two steps, and note what was asked for."""
        self.asked.append(source)
        tell(0, "index.html")
        if self.gate is not None:
            waits = [asyncio.create_task(event.wait()) for event in (self.gate, stop)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if stop.is_set():
            raise ZentriError("Stopped.")
        if self.error is not None:
            raise self.error
        tell(100, "")
        return f"The Web App 1.0.0 is restored from {source or 'somewhere'}."


async def _marked_good() -> str:
    return "This boot is good."


class Device:
    """A whole device in memory; its settings are real files under `folder`."""

    def __init__(self, folder: Path, *, safe_mode: bool = False, table: VariableTable = VARIABLES) -> None:
        self.settings = SettingsStore(folder, table)
        self.boot_state = MemoryBootState()
        self.slots = FixedSlots()
        self.dms = MemoryDms()
        self.updates = ScriptedUpdates()
        self.power = MemoryPower()
        self.clock = FixedClock()
        self.host = FixedHost()
        self.apps = MemoryApps()
        self.network = MemoryNetwork()
        self.probes = ScriptedProbes()
        self.gpios = MemoryGpios()
        self.web_app = MemoryWebApp()
        self.uploads = UploadDoors(folder / "incoming", lambda: 0, address="127.0.0.1")
        self.store = FileStore(folder / "files")
        self.log = folder / "zentrid.log"
        self.ctx = Context(
            release=RELEASE,
            identity=IDENTITY,
            settings=self.settings,
            boot_state=self.boot_state,
            slots=self.slots,
            dms=self.dms,
            updates=self.updates,
            power=self.power,
            clock=self.clock,
            host=self.host,
            apps=self.apps,
            uploads=self.uploads,
            files=DeviceFiles(self.store),
            web=WebClient(WebFiles(folder / "identity", folder / "files/ca.pem"), "zentrid/test", user="nobody"),
            journal=Journal(self.log),
            network=self.network,
            probes=self.probes,
            gpios=self.gpios,
            safe_mode=safe_mode,
            running_slot="r" if safe_mode else "a",
            setup=MemorySetup(),
            web_app=self.web_app,
            mark_good=_marked_good,
        )
