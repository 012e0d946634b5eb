"""Carries out a factory reset before the data partition is mounted. Run by early user space when the boot script says so.

Tier 1 makes a new file system on `data`; tier 2 removes the settings and nothing else. Then the defaults are written and
flushed, and the request in the boot state is cleared: last, so that a reset that was cut is simply done again. Nothing here
stops the boot: what fails is said on the console and noted for the supervisor. Faults, tries, floors, a request for safe
mode, identity and firmware are not touched: they are about the software, not about what its owner put in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from zentrid.adapters.bootstate import DiskBootStateStore
from zentrid.adapters.settings import SettingsStore
from zentrid.adapters.slots import find_partition
from zentrid.core.bootstate import BootState, BootStateLostError, BootStateWriteError, factory_reset_done
from zentrid.core.names import ARG_RESET
from zentrid.core.variable_list import VARIABLES
from zentrid.errors import ZentriError
from zentrid.factoryreset import EVERYTHING_DONE, NOTES_NAME, UNCLEARED_NAME
from zentrid.ports import BootStateStore
from zentrid.update.durable import flush_folder

EVERYTHING: Final = 1
SETTINGS_ONLY: Final = 2
DATA_FOLDER: Final = Path("/data")
NOTES_FOLDER: Final = Path("/run/zentri")
FOLDER_NAME: Final = "zentri"
"""Where on the data file system the supervisor keeps its own."""

# Eager tables: every old inode is overwritten now, so that no later repair finds an old file. Nothing is left to a kernel
# thread that works on while the board is in use.
MAKE: Final = (
    "mke2fs", "-q", "-F", "-t", "ext4", "-L", "data", "-m", "1", "-E", "lazy_itable_init=0,lazy_journal_init=0,discard"
)  # fmt: skip
CHECK: Final = ("e2fsck", "-f", "-n")
REPAIR: Final = (("e2fsck", "-p"), ("e2fsck", "-y"))
UNREPAIRED: Final = 4
"""e2fsck's exit status from which on errors are left."""
STEP_LIMIT_S: Final = 300.0
"""A program that takes longer is ended: a disk that does not answer must not keep the board from coming up."""
FEED_EVERY_S: Final = 5.0


class ResetError(ZentriError):
    """The reset could not be done; the request stays, and the next start tries again."""

    reason = "factory_reset_failed"


class UnclearedError(ResetError):
    """The reset is done, and its request still stands in the boot state."""

    reason = "factory_reset_not_cleared"


def _no_mark(_tier: int) -> None:
    """Mark nothing."""


class System(Protocol):
    """What a reset needs of the operating system. Everything may raise OSError."""

    def run(self, *command: str) -> int:
        """Run a program to its end; return its exit status."""

    def mount(self, device: Path) -> Path:
        """Mount the ext4 file system on `device`; return the folder."""

    def unmount(self, folder: Path) -> None:
        """Write everything out and unmount."""

    def flush(self, device: Path) -> None:
        """Make everything that was written to `device` durable."""


# --- the two tiers ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reset:
    """One reset. `run` may be cut anywhere and run again."""

    system: System
    store: BootStateStore
    device: Path
    """The partition `data`."""
    say: Callable[[str], None]

    def run(self, tier: int) -> None:
        """Carry out tier 1 or 2 and clear the request. Raises ResetError, OSError, SettingsSaveError: then it still stands."""
        if tier == EVERYTHING:
            self.say("factory reset: making a new data file system")
            self._make()
        else:
            self.say("factory reset: removing the settings")
            self._repair()
        self._write_defaults(remove=tier == SETTINGS_ONLY)
        self._done(tier)

    def _make(self) -> None:
        status = self.system.run(*MAKE, str(self.device))
        if status:
            raise ResetError(
                f"the data partition cannot be formatted (mke2fs ended with {status}); the disk may be broken"
            )
        self.system.flush(self.device)
        status = self.system.run(*CHECK, str(self.device))
        if status:
            raise ResetError(f"the new data file system is not sound (e2fsck found {status}); the disk may be broken")

    def _repair(self) -> None:
        for command in REPAIR:
            if self.system.run(*command, str(self.device)) < UNREPAIRED:
                return

    def _write_defaults(self, *, remove: bool) -> None:
        self.say("factory reset: writing the defaults")
        try:
            top = self.system.mount(self.device)
        except OSError as error:
            # Not ours to wipe: only a reset of everything may do that.
            hint = "; a factory reset of everything makes a new one" if remove else ""
            raise ResetError(f"the data file system cannot be mounted ({error}){hint}") from error
        try:
            folder = top / FOLDER_NAME
            if remove and folder.is_dir():
                for path in sorted(folder.glob("settings*.json")):
                    path.unlink()
                flush_folder(folder)
            SettingsStore(folder, VARIABLES).save_now()
        finally:
            self.system.unmount(top)
        self.system.flush(self.device)

    def _done(self, tier: int) -> None:
        """Clear the request, if it is still the one that was carried out."""

        def change(state: BootState) -> BootState:
            return factory_reset_done(state) if state.factory_reset == tier else state

        try:
            self.store.read()  # lost copies are not ours to write anew: the supervisor does, and says so
            self.store.update(change)
        except (BootStateLostError, BootStateWriteError) as error:
            raise UnclearedError(
                f"the factory reset is done, but will be done again at the next start: {error}"
            ) from error
        self.say("factory reset: done")


# --- the board ------------------------------------------------------------------------------------------------------------
class Board:
    """The production `System`. Feeds the watchdog while a program runs: nobody else does this early."""

    def __init__(self, folder: Path = DATA_FOLDER, watchdog: Path = Path("/dev/watchdog")) -> None:
        self._folder = folder
        self._watchdog = watchdog

    def run(self, *command: str) -> int:
        """Run a program; ended after STEP_LIMIT_S, which counts as the exit status -9."""
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        begin_s = time.monotonic()
        while True:
            self._feed()
            with suppress(subprocess.TimeoutExpired):
                return child.wait(FEED_EVERY_S)
            if time.monotonic() - begin_s > STEP_LIMIT_S:
                child.kill()  # not waited for: it may be stuck in the kernel
                return -9

    def mount(self, device: Path) -> Path:
        """Mount where data belongs."""
        self._must("mount", "-t", "ext4", "-o", "nosuid,nodev,noatime", str(device), str(self._folder))
        return self._folder

    def unmount(self, folder: Path) -> None:
        """Unmount, which writes everything out."""
        self._must("umount", str(folder))

    def flush(self, device: Path) -> None:
        """Flush the device's pages and its write cache."""
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _must(self, *command: str) -> None:
        status = self.run(*command)
        if status:
            raise OSError(f"{command[0]} ended with {status}")

    def _feed(self) -> None:
        with suppress(OSError), self._watchdog.open("wb"):
            pass


def asked(cmdline: str) -> int:
    """Return what the kernel arguments ask for: 0, EVERYTHING or SETTINGS_ONLY. The last word is the boot script's own."""
    values = [word.partition("=")[2] for word in cmdline.split() if word.startswith(f"{ARG_RESET}=")]
    return int(values[-1]) if values and values[-1] in (str(EVERYTHING), str(SETTINGS_ONLY)) else 0


def carry_out(
    tier: int,
    make: Callable[[], Reset],
    say: Callable[[str], None],
    note: Callable[[str], None],
    mark: Callable[[int], None] = _no_mark,
) -> bool:
    """Carry a reset out; return whether it is done. Never raises: what went wrong is said and noted.

    `mark` is called with the tier if only the request could not be cleared.
    """
    begin_s = time.monotonic()
    try:
        make().run(tier)
    except UnclearedError as error:
        say(f"factory reset: {error}")
        note(f"factory reset: {error}")
        mark(tier)
        return False
    except (ZentriError, OSError) as error:
        say(f"factory reset: {error}")
        note(f"factory reset: {error}")
        return False
    except Exception as error:  # a mistake in here must not keep the board from booting
        say(f"factory reset: failed ({type(error).__name__}: {error})")
        note(f"factory reset: failed ({type(error).__name__}: {error})")
        return False
    what = EVERYTHING_DONE if tier == EVERYTHING else "factory reset done (settings only)"
    note(f"{what} in {time.monotonic() - begin_s:.1f} s")
    return True


def _say(text: str) -> None:
    with suppress(OSError), Path("/dev/console").open("w") as console:
        console.write(f"zentri: {text}\n")


def _note(text: str) -> None:
    with suppress(OSError), (NOTES_FOLDER / NOTES_NAME).open("a") as notes:
        notes.write(" ".join(text.split()) + "\n")


def _mark(tier: int) -> None:
    with suppress(OSError):
        (NOTES_FOLDER / UNCLEARED_NAME).write_text(f"{tier}\n")


def main() -> int:
    """Do what the boot script asked for; return 0 when that is done, or nothing was asked for."""
    tier = asked(Path("/proc/cmdline").read_text(errors="replace"))
    if not tier:
        return 0

    def make() -> Reset:
        dev = Path("/dev")
        store = DiskBootStateStore(dev / find_partition("bootstate")["DEVNAME"])
        return Reset(Board(), store, dev / find_partition("data")["DEVNAME"], _say)

    return 0 if carry_out(tier, make, _say, _note, _mark) else 1


if __name__ == "__main__":
    sys.exit(main())
