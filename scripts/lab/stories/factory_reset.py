"""The story of a factory reset: by command, by the button at power-up and while running, from the server, cut in the middle."""

from __future__ import annotations

import time
from typing import Final

from scripts.lab.narrate import hold
from scripts.lab.stories.base import BOOT_TIMEOUT_S, Story, said

NAME: Final = "boiler-room"
FILE: Final = "/data/zentri/note.txt"
STARTS: Final = "zentri: warm="
WORKS: Final = "factory reset: "
"""How early user space announces its work on the console."""
INTERVAL_S: Final = 10


class FactoryResetStory(Story):
    """Four ways to a factory reset, two tiers; what is kept."""

    about = "factory reset by command, by button (at power-up, while running), from the server; cut by a power cut"

    def play(self) -> None:
        """Play every step in order."""
        self.fresh_board()
        with self.board.expecting("reset"):
            for step in (
                self.claim, self.activate, self.wrong_mac, self.by_command, self.settings_only, self.released_early,
                self.by_button_at_power_up, self.by_button_while_running, self.cut_in_the_middle, self.by_server,
            ):  # fmt: skip
                step()
        self.tell.end()

    # --- the steps ----------------------------------------------------------------------------------------------------
    def wrong_mac(self) -> None:
        """The MAC address is the proof that this very device is meant."""
        with self.tell.step("`factory_reset` with a wrong MAC address, or none, is refused"):
            self.leave_traces()
            for line in ("factory_reset 00:11:22:33:44:55", "factory_reset"):
                hold(not self.send(line).ok, f"`{line}` was accepted")
            self.traces(kept=True)

    def by_command(self) -> None:
        """Everything on the data partition goes; what the device is stays."""
        with self.tell.step("`factory_reset <mac>`: everything on data goes; claim, identity and firmware stay"):
            uuid = self.uuid()
            self.ok(f"factory_reset {self.get('network.mac')}")
            self.back(reset=True)
            self.traces(kept=False)
            hold(self.get("system.uuid") == uuid, "the identity changed")
            answer = self.ok("dms status")
            hold("claimed: yes" in answer.body, "the claim is gone")

    def settings_only(self) -> None:
        """The smaller tier."""
        with self.tell.step("`factory_reset -s <mac>`: settings only, files stay"):
            self.leave_traces()
            self.ok(f"factory_reset -s {self.get('network.mac')}")
            self.back(reset=True)
            hold(self.get("system.name") == "", "a setting was kept")
            hold(self.board.succeed(f"cat {FILE}").strip() == NAME, "a file is gone")

    def released_early(self) -> None:
        """A short press does nothing."""
        with self.tell.step("the button pressed for 2 s at power-up: nothing happens"):
            self.leave_traces()
            self.board.power_cut()
            self.board.power_on(button_hold_s=2)
            self.board.wait_for_console("button released early", BOOT_TIMEOUT_S)
            self.back(reset=False)
            self.traces(kept=True)

    def by_button_at_power_up(self) -> None:
        """In the boot script, so it works whatever is in the slots."""
        with self.tell.step("the button held for 5 s at power-up; the lamp blinks, then stays lit: factory reset"):
            self.board.power_cut()
            self.board.power_on()
            with self.board.button_held():  # long before the boot script looks
                self.board.wait_for_led(on=True)
                self.board.wait_for_led(on=False)
                self.board.wait_for_console("factory reset asked for by the button", BOOT_TIMEOUT_S)
            self.back(reset=True)
            self.traces(kept=False)

    def by_button_while_running(self) -> None:
        """Seen by the supervisor."""
        with self.tell.step("the button held for 10 s while running: factory reset"):
            self.leave_traces()
            with self.board.button_held():
                self.board.wait_for_console(STARTS, BOOT_TIMEOUT_S)
            self.back(reset=True)
            self.traces(kept=False)

    def cut_in_the_middle(self) -> None:
        """It runs again until it is done."""
        with self.tell.step("the power is cut in the middle of a reset: the next boot does it"):
            self.leave_traces()
            self.board.mark()
            self.ok(f"factory_reset {self.get('network.mac')}")
            self.board.wait_for_console(WORKS, BOOT_TIMEOUT_S)
            self.board.power_cut()
            self.board.power_on()
            self.back(reset=True)
            self.traces(kept=False)

    def by_server(self) -> None:
        """The owner asks for it from afar; the device does it at its next contact, once."""
        with self.tell.step("the owner asks for it at the DMS; the device does it at its next contact"):
            self.leave_traces()
            self.ok(f"set dms.interval {INTERVAL_S}")
            uuid = self.uuid()
            self.board.mark()
            self.dms.post(f"/api/v1/devices/{uuid}/factory-reset", {"settings_only": False, "confirm": uuid[-6:]})
            self.back(reset=True)
            self.traces(kept=False)
            state = self.dms.get(f"/api/v1/devices/{uuid}/commands")["commands"][0]["state"]
            hold(state == "accepted", f"the server shows the command as {state}")

    # --- means ----------------------------------------------------------------------------------------------------
    def leave_traces(self) -> None:
        """Set and save a variable, write a file."""
        self.board.wait_for_healthy(BOOT_TIMEOUT_S)
        self.ok(f"set system.name {NAME}")
        self.ok("save")
        self.board.wait_until_succeeds(f"echo {NAME} > {FILE} && sync", 60)

    def traces(self, *, kept: bool) -> None:
        """Check that both are there, or both gone."""
        name = self.get("system.name")
        found = self.board.wait_until_succeeds(f"cat {FILE} 2> /dev/null || echo gone", 60).strip()
        expected = (NAME, NAME) if kept else ("", "gone")
        hold((name, found) == expected, f"name and file are {(name, found)}, not {expected}")

    def back(self, *, reset: bool) -> None:
        """Wait for the board to be back, healthy, with or without a reset."""
        began_s = time.monotonic()
        if reset:
            self.board.wait_for_console(WORKS + "done", BOOT_TIMEOUT_S)
        answer = self.board.wait_for_healthy(BOOT_TIMEOUT_S)
        self.tell.note(f"{said(answer)} (after {time.monotonic() - began_s:.0f} s)")
