"""The story of the first release: claimed, updated, a bad update that travels back, tampering, a damaged slot, a cut."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

from scripts.board_driver.errors import BoardAssertionError, MachineError
from scripts.board_driver.watch import BANNER
from scripts.lab.narrate import hold
from scripts.lab.stories.base import UPDATE_TIMEOUT_S, Story, said
from scripts.lab.tamper import flipped_bit, targets

NOT_CLAIMED: Final = '{"result":"fail","message":"device not claimed"}'


class UpdateStory(Story):
    """Claimed, updated, a bad update that travels back, tampering, a damaged slot, a cut."""

    versions = ("1.1.0", "1.2.0", "1.3.0", "1.4.0")
    about = "claim, update, a bad update that travels back, a tampered server, a damaged slot, a power cut"

    def play(self) -> None:
        """Play every step in order. The console is watched all the time: only restarts are in order, no panic."""
        self.fresh_board()
        with self.board.expecting(BANNER):
            for step in (
                self.not_claimed, self.wrong_password, self.claim, self.activate, self.first_update, self.nothing_to_do,
                self.sick_update, self.third_update, self.tampered_server, self.damaged_slot,
                self.power_cut_while_downloading,
            ):  # fmt: skip
                step()
        self.tell.end()

    # --- the steps ----------------------------------------------------------------------------------------------------
    def not_claimed(self) -> None:
        """Without an owner there are no updates."""
        with self.tell.step("`ota` is refused: nobody has claimed the device"):
            answer = self.send("ota")
            hold(not answer.ok and NOT_CLAIMED in said(answer), f"the answer is not {NOT_CLAIMED}")

    def wrong_password(self) -> None:
        """A wrong password claims nothing."""
        with self.tell.step("`dms claim` with a wrong password is refused"):
            answer = self.send("dms claim demo not-the-password", shown="dms claim demo not-the-password")
            hold(not answer.ok, "a wrong password was accepted")

    def first_update(self) -> None:
        """The ordinary way of an update."""
        with self.tell.step("1.1.0 is published; `ota` installs it; the board restarts into it and is healthy"):
            self.publish("1.1.0")
            self.ota_to("1.1.0")
            self.slots()
        with self.tell.step("the DMS shows 1.1.0, installed"):
            self.wait_for_dms("1.1.0", "installed")

    def nothing_to_do(self) -> None:
        """The newest release is not installed twice."""
        with self.tell.step("`ota` again: no update required"):
            answer = self.ok("ota")
            hold("no update required" in said(answer).lower(), "the answer does not say that no update is required")
            hold(self.get("dms.ota_result") == "2", "dms.ota_result is not 2")

    def sick_update(self) -> None:
        """A release that boots but never gets healthy leads back."""
        with self.tell.step("1.2.0 is published: it boots, but its device never gets healthy"):
            self.publish("1.2.0")
            self.start_ota("1.2.0")
        with self.tell.step("its tries are used up; the board comes back on 1.1.0 by itself"):
            self.wait_for_dms("1.1.0", "rolled_back")
            self.wait_for_version("1.1.0")
            self.slots()
        with self.tell.step("the DMS shows that it was rolled back, and why"):
            device = self.dms.device(self.uuid())
            self.tell.note(f"{device['outcome']}: {device['outcome_reason']} {device['outcome_detail']}")
            why = f"{device['outcome_reason']} {device['outcome_detail']}"
            hold("pump controller" in why, "the reason does not reach the DMS")

    def third_update(self) -> None:
        """A mended release installs."""
        with self.tell.step("1.3.0 mends it"):
            self.publish("1.3.0")
            self.ota_to("1.3.0")
            self.wait_for_dms("1.3.0", "installed")

    def tampered_server(self) -> None:
        """What the server hands out is not what was signed."""
        self.publish("1.4.0")
        before = self.get("system.boot.slot")
        for target in targets(self.world, self.dms, "1.4.0", installed=("1.1.0", "1.3.0")):
            with self.tell.step(
                f"one bit of the {target.what} of 1.4.0 is flipped on the server: refused, nothing changed"
            ):
                # A patch that is there already was made and checked before the attack, and would do.
                self.dms.forget_patches()
                with flipped_bit(target):
                    answer = self.send("ota")
                hold(not answer.ok, f"an update with a flipped bit in its {target.what} was accepted")
                hold("1.3.0," in self.send("version").body, "the running release changed")
                hold(self.get("system.boot.slot") == before, "the running slot changed")
        with self.tell.step("the server is mended: 1.4.0 installs"):
            self.ota_to("1.4.0")
            self.wait_for_dms("1.4.0", "installed")

    def damaged_slot(self) -> None:
        """Bit rot in the running slot's kernel."""
        with self.tell.step(
            "the FIT of the running slot is damaged on the disk; after a power cycle the other slot boots"
        ):
            slot = self.get("system.boot.slot")
            self.board.power_cut()
            self.board.disk_flip_bit(f"kernel_{slot}", 1024 * 1024)
            self.board.power_on()
            self.wait_for_version("1.3.0")
            hold(self.get("system.boot.slot") != slot, "the damaged slot still runs")
            self.slots()

    def power_cut_while_downloading(self) -> None:
        """A download that the plug interrupts is taken up again."""
        with self.tell.step("`ota`; the power is cut in mid-download; the board comes back as it was"):
            self._cut_while_downloading()
            self.board.power_on()
            self.wait_for_version("1.3.0")
        with self.tell.step("`ota` again goes on where it stopped and finishes"):
            self.ota_to("1.4.0")
            self.wait_for_dms("1.4.0", "installed")
            self.slots()

    def _cut_while_downloading(self) -> None:
        """Type `ota`, watch its progress on the console, and cut the power in the middle of the download."""

        def type_ota() -> None:
            with suppress(MachineError, BoardAssertionError):  # the console dies with the power
                self.board.send("ota", UPDATE_TIMEOUT_S)

        self.dms.forget_patches()  # the whole payload takes longer, so that there is a middle
        self.board.mark()
        typist = threading.Thread(target=type_ota)
        typist.start()
        seen = self.board.wait_for_console(r"\b([0-9]{1,2})% downloading", UPDATE_TIMEOUT_S)
        self.board.power_cut()
        self.tell.note(f"cut at {seen[1]} %")
        typist.join()
