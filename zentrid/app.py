"""Wires the supervisor: the only place that builds adapters and connects them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from zentrid.adapters import apps, hooks
from zentrid.adapters.alive import AliveMark
from zentrid.adapters.bootstate import DiskBootStateStore
from zentrid.adapters.busdoor import BusDoor
from zentrid.adapters.clock import last_signed_time, mend_system_clock
from zentrid.adapters.crashes import take_crash
from zentrid.adapters.filestore import FileStore
from zentrid.adapters.filestreams import DeviceFiles
from zentrid.adapters.gpio import ButtonWatch
from zentrid.adapters.gpiolines import GpioLines
from zentrid.adapters.hooks import install_facts, run_hooks
from zentrid.adapters.hostinfo import LinuxHost, SystemClock
from zentrid.adapters.httpdoor import HttpDoor, plan_of
from zentrid.adapters.items import ItemFolder, publish_files
from zentrid.adapters.journal import Journal
from zentrid.adapters.logs import set_up_log
from zentrid.adapters.network import LinkInterface, NetworkControl
from zentrid.adapters.power import InitPower
from zentrid.adapters.probe import NetworkProbe
from zentrid.adapters.pstore import Pstore
from zentrid.adapters.ringfile import RingFile
from zentrid.adapters.sessions import CommandServer
from zentrid.adapters.settings import SettingsStore
from zentrid.adapters.setupmode import SetupMode
from zentrid.adapters.slots import DiskSlots, find_partition
from zentrid.adapters.ssh import SshAccess
from zentrid.adapters.uploads import UploadDoors
from zentrid.adapters.watchdog import Watchdog
from zentrid.adapters.webappfiles import RECORD, WebAppFiles
from zentrid.adapters.webclient import WebClient, WebFiles
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.bundle.manifest import Manifest
from zentrid.commands.catalog import build_registry
from zentrid.commands.context import Context
from zentrid.core.apps import AppLimits
from zentrid.core.bootstate import Fault, clear_faults
from zentrid.core.clock import earliest_now
from zentrid.core.events import FaultRecorded, UpdateChanged
from zentrid.core.gpio import initial
from zentrid.core.health import Facts, Policy
from zentrid.core.names import GPIO_CHIP, MIB, NETWORK_INTERFACE, SAFE_SLOT
from zentrid.core.postmortem import Explained
from zentrid.core.schedule import Settings as AutoSettings
from zentrid.core.schedule import parse_windows
from zentrid.core.variable_list import VARIABLES
from zentrid.eventbus import EventBus
from zentrid.factoryreset import early_notes, request_reset
from zentrid.faultkeeper import FaultKeeper, describe_exception
from zentrid.ports import AppExit
from zentrid.resets import explain_resets
from zentrid.start import (
    EARLY,
    IDENTITY,
    Device,
    ask_for_safe_mode,
    data_problem,
    late_clearing,
    lost_state_is_news,
    read_device,
    restore_boot_state,
    safe_mode_is_over,
    safe_mode_reason,
)
from zentrid.supervisor import Supervisor
from zentrid.update.auto import AutoUpdates, TimeOfDay
from zentrid.update.contact import Contact, ServerCommand, decide
from zentrid.update.errors import unreachable_because
from zentrid.update.itemtrial import Checks
from zentrid.update.link import Parts, Paths
from zentrid.update.manager import UpdateManager
from zentrid.update.outcome import UpdateOutcome
from zentrid.webappkeeper import WebAppKeeper

log = logging.getLogger("zentrid")

RUN: Final = Path("/run/zentrid")
LOG: Final = RUN / "zentrid.log"
DATA: Final = Path("/data/zentri")
HOOKS: Final = Path("/etc/zentri/hooks")
SSH: Final = Path("/run/zentri/ssh")
DEV: Final = Path("/dev")
SERIAL: Final = Path("/dev/ttyAMA0")
WATCHDOG: Final = Path("/dev/watchdog")
COMMAND_GID: Final = 1000
"""Group `zentri`, whose login shell is the command language."""
APP_STOP_S: Final = 2.0
"""How long the boot application may take to end by itself when the board is restarted."""
CLEAR_AGAIN_S: Final = 60.0
DIED: Final = "the supervisor ended without a word: killed, or out of memory"


def open_watchdog(timeout_s: int) -> Watchdog | None:
    """Open the watchdog; a board without one runs, and its log says so."""
    try:
        return Watchdog(WATCHDOG, timeout_s)
    except OSError as error:
        log.error("no hardware watchdog: %s", error)
        return None


class App:
    """The supervisor with everything wired."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.clock = SystemClock()
        # The partition table is fixed, so what finds the boot state must not need the boot state.
        self.store = DiskBootStateStore(DEV / find_partition("bootstate")["DEVNAME"])
        self.slots = DiskSlots(self.store)
        self.settings = SettingsStore(DATA, VARIABLES)
        self.host = LinuxHost(NETWORK_INTERFACE)
        self.network = NetworkControl(self.settings.values, LinkInterface(NETWORK_INTERFACE, self.host.network))
        self.power = InitPower(self.store)
        self.events = EventBus()
        self.events.listen(lambda event: None if event.routine else log.info("%s", event.sentence()))
        self.time_of_day = TimeOfDay(self.clock)
        self.items = ItemFolder()
        self.apps = apps.AppRunner(
            (self.items.apps(device.boot.slot), *apps.FOLDERS), RingFile(apps.LOG_PATH), self._app_limits, self._app_ended,
            take_crash, going_down=lambda: self.power.going_down,
        )  # fmt: skip
        self.manager = UpdateManager(
            Parts(
                release=device.release, identity=device.identity, boot_state=self.store, slots=self.slots,
                launcher=SubprocessLauncher(), server=lambda: self.context.dms_server(),
                paths=Paths(identity_dir=IDENTITY, data_dir=DATA),
                rate_limit_kib_s=lambda: self.settings.values.number("ota.rate_limit"),
                tell=self.events.tell, report_progress=True,
                network_trouble=lambda: unreachable_because(self.network.trouble()),
                budget_bytes=lambda: self.settings.values.number("ota.budget") * MIB,
                pre_install=lambda manifest: self._objection("pre-install", manifest),
                post_install=lambda manifest: self._objection("post-install", manifest),
                checks=Checks(self.apps, lambda: run_hooks(HOOKS / "health", "health"), self._policy),
                contact=Contact(
                    interval_s=lambda: self.settings.values.number("dms.interval"),
                    note=self._note_contact,
                    may=self._may, act=self._act,
                ),
            )
        )  # fmt: skip
        self.power.before.append(lambda: self.apps.stop(timeout_s=APP_STOP_S))
        self.button = ButtonWatch(GPIO_CHIP, lambda: self._reset_data("the button was held"))
        self.gpios = GpioLines(GPIO_CHIP, self.button)
        self.supervisor = Supervisor(
            power=self.power, outcome=UpdateOutcome(self.manager), clock=self.clock, watchdog=None,
            policy=self._policy, facts=self._facts, hooks=self._health_objections,
            going_down=lambda: self.power.going_down, pulse=self.store.probe,
            decay_s=self._decay_s, forget_faults=self._forget_faults,
        )  # fmt: skip
        self.faults = FaultKeeper(
            self.store, self.manager.outbox, self.clock, slot=device.boot.slot, version=device.release.version,
            on_trial=lambda: self.manager.on_trial or self.manager.items.on_trial, posted=self._posted,
        )  # fmt: skip
        self.faults.version = lambda: self.manager.version
        self.faults.heard = self._fault_heard
        self.faults.on_eighth = lambda: self._spawn(self.power.reboot("eight faults: safe mode is next", at_once=True))
        self.alive = AliveMark(RUN / "alive")
        self._background: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.uploads = UploadDoors(DATA / "incoming", lambda: self.settings.values.number("ota.upload.port"))
        self.files = FileStore(DATA / "files")
        web_files = WebFiles(IDENTITY, self.files.top / "ca.pem")
        self.http = HttpDoor(
            lambda: plan_of(
                self.settings.values, identity=IDENTITY, setup=self.setup.on, safe_mode=device.boot.slot == SAFE_SLOT
            ),
            going_down=lambda: self.power.going_down,
        )  # fmt: skip
        self.setup = SetupMode(lambda: self.settings.values.number("setup.web.timeout"), self.http.look_again)
        self.web_app = WebAppKeeper(
            WebAppFiles(self.files, DATA / RECORD), self.settings, self.manager, self.items, device.boot.slot
        )
        self.events.listen(lambda event: self.web_app.look_again() if isinstance(event, UpdateChanged) else None)
        self.context = Context(
            device.release, device.identity, settings=self.settings, boot_state=self.store, slots=self.slots,
            dms=self.manager.dms, updates=self.manager, power=self.power, clock=self.clock, host=self.host,
            apps=self.apps, uploads=self.uploads, network=self.network, probes=NetworkProbe(), gpios=self.gpios,
            files=DeviceFiles(self.files), web=WebClient(web_files, f"zentrid/{device.release.version}"),
            journal=Journal(LOG), safe_mode=device.boot.slot == SAFE_SLOT,
            safe_mode_reason=safe_mode_reason(device.boot), running_slot=device.boot.slot,
            held_items=lambda: self.items.held(device.boot.slot), events=self.events, setup=self.setup,
            web_app=self.web_app,
            boot_health=lambda: (self.supervisor.good, self.supervisor.decision.reason),
            mark_good=lambda: self.supervisor.mark_good_now(),
        )  # fmt: skip
        self.ssh = SshAccess(SSH, IDENTITY if device.release.development else None)
        self.server = CommandServer(
            build_registry(), self.context, socket_gid=COMMAND_GID, on_crash=self._command_crashed
        )

    async def _objection(self, kind: str, manifest: Manifest) -> str | None:
        """Return what a hook of this kind has against installing or activating now; None: nothing."""
        log.info("asking the %s hooks about %s-%s", kind, manifest.product, manifest.version)
        facts = install_facts(manifest, self.device.release.version)
        return "; ".join(await run_hooks(HOOKS / kind, kind, hooks.INSTALL, facts)) or None

    async def _health_objections(self) -> tuple[str, ...]:
        facts = {"ZENTRI_PRODUCT": self.device.release.product, "ZENTRI_VERSION": self.device.release.version}
        return await run_hooks(HOOKS / "health", "health", facts=facts)

    def _note_contact(self, facts: Mapping[str, str]) -> None:
        self.context.note_contact(**facts)
        self.time_of_day.heard(facts.get("time", ""))

    def _fault_heard(self, fault: Fault) -> None:
        self.supervisor.note_fault()
        self.events.tell(FaultRecorded(fault.cause, fault.detail))

    def _auto(self) -> AutoUpdates:
        return AutoUpdates(
            self.manager, self.context.update_runner, self._auto_settings, self.clock.uptime_s, self.time_of_day.now,
            boot_good=lambda: self.supervisor.good and not self.manager.on_trial, restart=self.power.reboot,
            going_down=lambda: self.power.going_down, way_out=self._way_out,
        )  # fmt: skip

    async def _way_out(self) -> None:
        # The installed release was verified and never started: from safe mode it is the way out, as one installed there is.
        if self.context.safe_mode:
            await self._forget_faults()

    def _auto_settings(self) -> AutoSettings:
        values = self.settings.values
        return AutoSettings(
            mode=values.text("dms.auto"), windows=parse_windows(values.text("dms.window")),
            interval_s=values.number("dms.interval"), restarts=self.context.reboots_after_update(),
        )  # fmt: skip

    def _policy(self) -> Policy:
        values = self.settings.values
        return Policy(
            healthy_after_s=values.number("system.boot.healthy_after"),
            deadline_s=values.number("system.boot.deadline"),
            commit_offline=values.flag("ota.commit.offline"),
        )

    def _facts(self) -> Facts:
        return Facts(
            data=data_problem(),
            interfaces=None if self.server.listening else "the command interfaces do not listen",
            deaf=not self.server.reachable,
            application=None if self.context.safe_mode or self.apps.stopped_by_hand else self.apps.problem,
        )

    def _app_limits(self) -> AppLimits:
        values = self.settings.values
        return AppLimits(memory_mib=values.number("system.app.memory"), files=values.number("system.app.files"))

    async def _app_ended(self, end: AppExit) -> None:
        self.manager.items.note_end(end)
        await self.faults.record("application", end.reason, frames=end.frames, text=end.output)

    def _follow_app(self) -> None:
        """Adopt the boot application now and whenever it is set."""
        values = self.settings.values
        self.apps.follow(values.text("system.boot.app"))
        values.subscribe(lambda name, value: self.apps.follow(str(value)) if name == "system.boot.app" else None)

    async def _tell(self, explained: Explained) -> None:
        """Report a fault of an earlier boot; the boot state has it already."""
        await asyncio.to_thread(self.faults.report_now, explained.fault, text=explained.text)

    async def _reset_data(self, why: str, *, settings_only: bool = False) -> None:
        await request_reset(self.store, self.power, settings_only=settings_only, why=why)

    def _may(self, command: ServerCommand) -> tuple[bool, str]:
        return decide(command, enabled=self.settings.values.flag("dms.cmd.enabled"))

    async def _act(self, command: ServerCommand) -> None:
        await self._reset_data("asked for by the device's owner at the DMS", settings_only=command.settings_only)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _posted(self) -> None:
        """A report waits. The keeper works in threads, the server's client in the event loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.manager.dms.wake)

    def _command_crashed(self, error: BaseException) -> None:
        detail, text = describe_exception(error)
        self._spawn(self.faults.record("supervisor", detail, text=text))

    async def _clear_late(self) -> None:
        while True:
            await asyncio.sleep(CLEAR_AGAIN_S)
            if self.power.going_down or await asyncio.to_thread(late_clearing, self.store):
                return

    def _decay_s(self) -> float:
        # Healthy running of the safe-mode system says nothing about the release whose faults led to it.
        return 0 if self.context.safe_mode else self.settings.values.number("system.fault.decay")

    async def _forget_faults(self) -> None:
        await asyncio.to_thread(self.store.update, clear_faults)

    def crashed(self, error: BaseException) -> None:
        """Record the exception that ends this supervisor, and restart the board if it is the eighth. Never raises."""
        self._loop = None
        try:
            detail, text = describe_exception(error)
            self.faults.record_now("supervisor", detail, text=text)
        except Exception:
            log.exception("the end of the supervisor could not be recorded")
        self.alive.clear()
        if self.faults.safe_mode_is_due():
            self.power.reboot_now("eight faults: safe mode is next")

    async def run(self) -> None:
        """Start everything and supervise until the process is told to end."""
        stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.events.attach()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stop.set)
        known = (self.device.release.built, self.device.identity.made, last_signed_time(DATA / "tuf"))
        self.time_of_day.known = not mend_system_clock(earliest_now(known))
        report = self.settings.load()
        for problem in report.problems:
            log.warning("settings: %s", problem)
        await asyncio.to_thread(restore_boot_state, self.store, self.device)
        await asyncio.to_thread(self.network.begin)
        uncleared = not await asyncio.to_thread(late_clearing, self.store)
        for note in early_notes(EARLY):
            log.warning("%s", note)
        await explain_resets(self.store, Pstore(), self.slots, self._tell, warm=self.device.boot.warm)
        await asyncio.to_thread(self.uploads.clear)
        await asyncio.to_thread(self.files.clear)
        await self.manager.start()
        # After the manager knows whether this release is on trial.
        if await asyncio.to_thread(lost_state_is_news, self.device, RUN / "state-lost-told"):
            await self.faults.record("state_lost", "both copies of the boot state were damaged")
        died = self.alive.set()
        if died is not None:
            crash = take_crash(died)
            await self.faults.record("supervisor", DIED, frames=crash[1] if crash else ())
        await self.server.start(SERIAL, RUN / "console.sock")
        self.ssh.follow(self.settings.values)
        publish_files(self.items.files(self.device.boot.slot))
        if not self.context.safe_mode:
            await asyncio.to_thread(self.gpios.begin, initial(self.settings.values))
        self._follow_app()
        self.http.follow(self.settings.values)
        # Last: what hangs until here is reset by early user space's own timeout, however short the one in the settings is.
        self.supervisor.watchdog = open_watchdog(self.settings.values.number("system.watchdog.timeout"))
        if await asyncio.to_thread(ask_for_safe_mode, self.store, self.device):
            await self.power.reboot("the data partition is damaged: safe mode is next")
        elif await asyncio.to_thread(safe_mode_is_over, self.store, self.device):
            await self.power.reboot("the factory reset has made new data: safe mode is over")
        if uncleared:
            self._spawn(self._clear_late())
        self._spawn(self.manager.items.resume())
        self._spawn(self.web_app.run())
        try:
            await self._supervise(stop)
            self.alive.clear()
        finally:
            log.info("ending")
            await self.context.update_runner.stop()
            await self.server.stop()
            await self.context.streams.close_all()

    async def _supervise(self, stop: asyncio.Event) -> None:
        """Run the long-lived tasks until `stop` is set; an exception in one of them ends all and is raised."""
        tasks = [
            asyncio.create_task(self.supervisor.run(), name="supervisor"),
            asyncio.create_task(self.manager.dms.keep_in_touch(first_boot=self.manager.first_boot), name="dms"),
            asyncio.create_task(self._auto().run(), name="automatic updates"),
            asyncio.create_task(self.button.run(), name="button"),
            asyncio.create_task(self.http.run(), name="HTTP door"),
            asyncio.create_task(BusDoor(gid=COMMAND_GID).run(), name="D-Bus door"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        if not self.context.safe_mode:
            tasks.append(asyncio.create_task(self.apps.run(), name="applications"))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


def main() -> int:
    """Run the supervisor; return its exit status. An exception ends it with a traceback in the log; init starts it again."""
    set_up_log(LOG)
    device = read_device()
    log.info("zentrid on %s-%s, slot %s", device.release.product, device.release.version, device.boot.slot)
    app = App(device)
    try:
        asyncio.run(app.run())
    except Exception as error:
        app.crashed(error)
        raise
    return 0
