"""The story of a device that goes wrong: a crashing application, panics, safe mode, both slots destroyed, and its way back."""

from __future__ import annotations

import os
import time
from typing import Final

from scripts.lab.narrate import hold
from scripts.lab.stories.base import BOOT_TIMEOUT_S, UPDATE_TIMEOUT_S, Story, said

MIB: Final = 1024 * 1024
APP: Final = "sample-arm --interval 1 --after 1 --crash segv"
APP_CRASHES: Final = 3
CRASH_PLACE: Final = "sample-arm.c:"
"""What a readable backtrace of the sample application names."""


class SafeModeStory(Story):
    """Eight exceptions, safe mode, random bytes over both slots, repaired over the air."""

    versions = ("1.1.0",)
    about = "a crashing application, kernel panics, safe mode at the eighth, both slots destroyed, repaired by `ota`"

    def play(self) -> None:
        """Play every step in order."""
        self.fresh_board()
        with self.board.expecting("reset", "panic", "call-trace"):
            for step in (
                self.claim, self.activate, self.crashing_application, self.readable_backtrace, self.panics,
                self.eighth, self.in_safe_mode, self.destroyed, self.repaired,
            ):  # fmt: skip
                step()
        self.tell.end()

    def faults(self) -> list[str]:
        """Return the lines of `faults_print`."""
        return [line for line in self.board.send("faults_print").body.splitlines() if line[:1].isdigit()]

    def crashing_application(self) -> None:
        """An application that ends by a signal is started again, and each end is counted."""
        with self.tell.step(f"The boot application crashes ({APP_CRASHES} times, with growing pauses)"):
            self.ok(f'set system.boot.app "{APP}"')
            self.until(lambda: len(self.faults()) >= APP_CRASHES, "the crashes to be counted")
            self.ok('set system.boot.app ""')
            self.tell.note(self.board.send("faults_print").body)
            hold("signal 11, at 0x" in self.faults()[0], "the record does not name signal and place")
            self.tell.note(said(self.board.send("app log -n 6")))

    def readable_backtrace(self) -> None:
        """The server makes the program counters readable."""
        with self.tell.step("The DMS shows the crash with functions and lines"):
            self.publish("1.1.0")  # brings the symbol files
            path = f"/api/v1/devices/{self.uuid()}/faults"

            def shown() -> bool:
                faults = self.dms.get(path)["faults"]
                return bool(faults) and any(CRASH_PLACE in line for line in faults[0]["backtrace"])

            self.until(shown, "the backtrace to be readable")
            self.tell.note("\n".join(self.dms.get(path)["faults"][0]["backtrace"][:6]))

    def panics(self) -> None:
        """Kernel panics are counted by the boot script and explained after the restart."""
        with self.tell.step("Kernel panics: counted by the boot script, explained from the kernel's last words"):
            while len(self.faults()) < 7:
                self._panic()
                self.board.wait_for_healthy(BOOT_TIMEOUT_S)
            self.tell.note(self.board.send("faults_print").body)
            hold("sysrq triggered crash" in self.faults()[-1], "the panic's text is not in the record")

    def _panic(self) -> None:
        self.board.mark()
        self.board.shell("(sleep 0.3; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 < /dev/null &")
        self.board.wait_for_console("Kernel panic")

    def eighth(self) -> None:
        """The eighth exception leads to safe mode."""
        with self.tell.step("The eighth exception: safe mode"):
            self._panic()
            began_s = time.monotonic()
            self.board.wait_for_console(r"\*\*\* Max faults exceeded\. Entering Safe Mode\.", BOOT_TIMEOUT_S)
            self.board.wait_for_console("SAFEMODE> ")
            self.tell.note(f"eighth exception to SAFEMODE>: {time.monotonic() - began_s:.1f} s")
            hold(self.get("system.safemode.status") == "1", "system.safemode.status is not 1")

    def in_safe_mode(self) -> None:
        """What could do harm is not there; what helps is."""
        with self.tell.step(
            "In safe mode: restricted commands, the faults are still there, a restart does not leave it"
        ):
            refused = self.send("set system.boot.app sample-arm")
            hold(not refused.ok and "safe mode" in said(refused).lower(), "a restricted variable was accepted")
            hold(len(self.faults()) == 8, "there are not eight faults")
            self.board.reboot()
            hold(self.get("system.safemode.status") == "1", "a restart alone left safe mode")

    def destroyed(self) -> None:
        """Worse: both slots overwritten."""
        with self.tell.step("Worse: both slots are overwritten with random bytes. The board still answers"):
            self.board.power_cut()
            for part in ("kernel_a", "rootfs_a", "kernel_b", "rootfs_b"):
                self.board.disk_write(part, 0, os.urandom(MIB) * 16)
            self.board.power_on()
            hold(self.board.wait_for_answer(BOOT_TIMEOUT_S).safe_mode, "the board is not in safe mode")
            self.slots()

    def repaired(self) -> None:
        """`ota` in safe mode writes a slot anew."""
        with self.tell.step("`ota` in safe mode writes a slot anew; the board restarts into it"):
            self.start_ota("1.1.0")
            self.wait_for_version("1.1.0")
            hold(self.get("system.safemode.status") == "0", "the board is still in safe mode")
            self.slots()
        with self.tell.step("the DMS shows 1.1.0, installed, no longer in safe mode"):
            self.wait_for_dms("1.1.0", "installed")
            hold(not self.faults(), "a successful update did not clear the faults")
            self.send("ota -c", timeout_s=UPDATE_TIMEOUT_S)
            self.until(lambda: not self.dms.device(self.uuid())["safemode"], "the DMS to show the end of safe mode")
