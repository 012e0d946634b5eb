"""Wires the supervisor: the only place that builds adapters and connects them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zentrid.adapters.about import BootArguments, IdentityError, read_boot_arguments, read_identity, read_release
from zentrid.adapters.bootstate import DiskBootStateStore
from zentrid.adapters.clock import last_signed_time, raise_system_clock
from zentrid.adapters.hooks import run_hooks
from zentrid.adapters.hostinfo import LinuxHost, SystemClock
from zentrid.adapters.logs import set_up_log
from zentrid.adapters.power import InitPower
from zentrid.adapters.sessions import CommandServer
from zentrid.adapters.settings import SettingsStore
from zentrid.adapters.slots import DiskSlots, find_partition
from zentrid.adapters.ssh import SshAccess
from zentrid.adapters.watchdog import Watchdog
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.bundle.manifest import Manifest
from zentrid.commands.catalog import build_registry
from zentrid.commands.context import Context
from zentrid.core.bootstate import BootStateWriteError, Fault, add_fault
from zentrid.core.clock import earliest_now
from zentrid.core.health import Facts, Policy
from zentrid.core.names import SAFE_SLOT
from zentrid.core.variable_list import VARIABLES
from zentrid.ports import Identity, Release
from zentrid.supervisor import Supervisor
from zentrid.update.link import Parts, Paths
from zentrid.update.manager import UpdateManager

log = logging.getLogger("zentrid")

RUN: Final = Path("/run/zentrid")
EARLY: Final = Path("/run/zentri")
"""Where early user space leaves its notes."""
DATA: Final = Path("/data/zentri")
IDENTITY: Final = Path("/identity")
HOOKS: Final = Path("/etc/zentri/hooks")
SSH: Final = Path("/run/zentri/ssh")
DEV: Final = Path("/dev")
SERIAL: Final = Path("/dev/ttyAMA0")
WATCHDOG: Final = Path("/dev/watchdog")
COMMAND_GID: Final = 1000
"""Group `zentri`, whose login shell is the command language."""
SAFE_MODE_REASON: Final = "No slot is left that boots"
NO_IDENTITY: Final = Identity("00000000-0000-0000-0000-000000000000", "00:00:00:00:00:00", "", 0)


@dataclass(frozen=True)
class Device:
    """What is known before anything is started."""

    boot: BootArguments
    release: Release
    identity: Identity
    identity_problem: str | None


def read_device() -> Device:
    """Read arguments, release and identity; a device without a usable identity still starts and says so."""
    boot, release = read_boot_arguments(), read_release()
    try:
        return Device(boot, release, read_identity(IDENTITY), None)
    except IdentityError as error:
        log.error("%s", error)
        return Device(boot, release, NO_IDENTITY, str(error))


def restore_boot_state(store: DiskBootStateStore, device: Device, uptime_s: float, utc: str) -> None:
    """Write a good boot state where the boot script found none, and record that as a fault."""
    if not device.boot.state_lost:
        return
    fault = Fault(
        "state_lost", device.boot.slot, device.release.version, int(uptime_s), utc, "both copies were damaged"
    )
    try:
        store.update(lambda state: add_fault(state, fault))
    except BootStateWriteError as error:
        log.error("%s", error)


def data_problem() -> str | None:
    """Return what is wrong with the data file system, None if it is mounted and can be written."""
    if (EARLY / "data-failed").exists():
        return "the data partition could not be mounted; settings are kept in RAM until it is repaired"
    try:
        flags = os.statvfs("/data").f_flag
    except OSError as error:
        return f"the data partition does not answer ({error.strerror})"
    return "the data partition is read-only" if flags & os.ST_RDONLY else None


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
        self.power = InitPower(self.store)
        self.manager = UpdateManager(
            Parts(
                release=device.release, identity=device.identity, boot_state=self.store, slots=self.slots,
                launcher=SubprocessLauncher(), server=lambda: self.context.dms_server(),
                paths=Paths(identity_dir=IDENTITY, data_dir=DATA),
                rate_limit_kib_s=lambda: self.settings.values.number("ota.rate_limit"),
                pre_install=self._objection,
            )
        )  # fmt: skip
        self.supervisor = Supervisor(
            power=self.power, outcome=UpdateOutcome(self.manager), clock=self.clock, watchdog=None,
            policy=self._policy, facts=self._facts, hooks=lambda: run_hooks(HOOKS / "health", "health"),
            going_down=lambda: self.power.going_down,
        )  # fmt: skip
        self.context = Context(
            device.release, device.identity, settings=self.settings, boot_state=self.store, slots=self.slots,
            dms=self.manager.dms, updates=self.manager, power=self.power, clock=self.clock, host=LinuxHost(),
            safe_mode=device.boot.slot == SAFE_SLOT, safe_mode_reason=SAFE_MODE_REASON, running_slot=device.boot.slot,
            boot_health=lambda: (self.supervisor.good, self.supervisor.decision.reason),
        )  # fmt: skip
        self.ssh = SshAccess(SSH, IDENTITY if device.release.development else None)
        self.server = CommandServer(build_registry(), self.context, socket_gid=COMMAND_GID)

    async def _objection(self, manifest: Manifest) -> str | None:
        """Return what a pre-install hook has against installing now; None: nothing."""
        log.info("asking the pre-install hooks about %s-%s", manifest.product, manifest.version)
        return "; ".join(await run_hooks(HOOKS / "pre-install", "pre-install")) or None

    def _policy(self) -> Policy:
        values = self.settings.values
        return Policy(
            healthy_after_s=values.number("system.boot.healthy_after"),
            deadline_s=values.number("system.boot.deadline"),
            commit_offline=values.flag("ota.commit.offline"),
        )

    def _facts(self) -> Facts:
        return Facts(
            data=data_problem(), interfaces=None if self.server.listening else "the command interfaces do not listen"
        )

    async def run(self) -> None:
        """Start everything and supervise until the process is told to end."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        known = (self.device.release.built, self.device.identity.made, last_signed_time(DATA / "tuf"))
        raise_system_clock(earliest_now(known))
        report = self.settings.load()
        for problem in report.problems:
            log.warning("settings: %s", problem)
        await asyncio.to_thread(
            restore_boot_state, self.store, self.device, self.clock.uptime_s(), self.context.utc_text()
        )
        await self.manager.start()
        await self.server.start(SERIAL, RUN / "console.sock")
        self.ssh.follow(self.settings.values)
        # Last: what hangs until here is reset by early user space's own timeout, however short the one in the settings is.
        self.supervisor.watchdog = open_watchdog(self.settings.values.number("system.watchdog.timeout"))
        try:
            await self._supervise(stop)
        finally:
            log.info("ending")
            await self.context.update_runner.stop()
            await self.server.stop()

    async def _supervise(self, stop: asyncio.Event) -> None:
        """Run the long-lived tasks until `stop` is set; an exception in one of them ends all and is raised."""
        tasks = [
            asyncio.create_task(self.supervisor.run(), name="supervisor"),
            asyncio.create_task(self.manager.dms.keep_in_touch(first_boot=self.manager.first_boot), name="dms"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


class UpdateOutcome:
    """The update manager, in the words of the supervisor."""

    def __init__(self, manager: UpdateManager) -> None:
        self._manager = manager

    @property
    def first_boot(self) -> bool:
        """This is the first boot of a release that was just installed."""
        return self._manager.first_boot

    @property
    def on_trial(self) -> bool:
        """The running slot was never good since it was installed."""
        return self._manager.on_trial

    @property
    def dms_reached(self) -> bool:
        """The DMS answered at least once since this boot."""
        return self._manager.dms.reached

    async def on_healthy(self) -> None:
        """Mark this boot good. Raises BootStateWriteError."""
        await self._manager.on_healthy()

    async def on_unhealthy(self, reason: str) -> None:
        """Record why this boot is given up."""
        await self._manager.on_unhealthy(reason)


def main() -> int:
    """Run the supervisor; return its exit status. An exception ends it with a traceback in the log; init starts it again."""
    set_up_log(RUN / "zentrid.log")
    device = read_device()
    log.info("zentrid on %s-%s, slot %s", device.release.product, device.release.version, device.boot.slot)
    asyncio.run(App(device).run())
    return 0
