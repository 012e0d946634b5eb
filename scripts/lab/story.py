"""The story of the first release: claimed, updated, a bad update that travels back, tampering, a damaged slot, a cut."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from scripts.board_driver.errors import BoardAssertionError, DeadlineError, MachineError
from scripts.board_driver.machine_mode import Answer
from scripts.board_driver.watch import BANNER
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.dms import LabDms
from scripts.lab.narrate import Narrator, hold
from scripts.lab.places import PRODUCT
from scripts.lab.tamper import flipped_bit, targets
from scripts.lab.world import World

NOT_CLAIMED: Final = '{"result":"fail","message":"device not claimed"}'
UPDATE_TIMEOUT_S: Final = 300.0
BOOT_TIMEOUT_S: Final = 180.0
DEADLINE_S: Final = 35
"""`system.boot.deadline` in the story: how long a new release has on each of its tries."""
HEALTHY_AFTER_S: Final = 3


def said(answer: Answer) -> str:
    """Return everything an answer said: log lines and body."""
    return "\n".join([*answer.log, answer.body]).strip()


@dataclass
class Story:
    """The board, the server, the publisher, and the voice that tells."""

    world: World
    dms: LabDms
    board: WatchedBoard
    tell: Narrator

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
    def fresh_board(self) -> None:
        """A board as it leaves manufacture."""
        with self.tell.step("A fresh board boots release 1.0.0"):
            self.board.up(fresh=True)
            answer = self.board.wait_for_healthy(BOOT_TIMEOUT_S)
            self.tell.note(answer.body)
            hold(f"{PRODUCT}-1.0.0," in answer.body, "the board does not run 1.0.0")
            self._ok(f"set system.boot.deadline {DEADLINE_S}")
            self._ok(f"set system.boot.healthy_after {HEALTHY_AFTER_S}")
            self._ok("save")

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

    def claim(self) -> None:
        """The owner claims the device."""
        account = self.dms.account
        with self.tell.step("`dms claim` with the right one"):
            self._ok(f"dms claim {account['user']} {account['password']}", shown="dms claim demo (password)")

    def activate(self) -> None:
        """The owner binds it to a product."""
        with self.tell.step("`dms activate` binds it to the product"):
            self._ok(f"dms activate {PRODUCT}")

    def first_update(self) -> None:
        """The ordinary way of an update."""
        with self.tell.step("1.1.0 is published; `ota` installs it; the board restarts into it and is healthy"):
            self.publish("1.1.0")
            self._ota_to("1.1.0")
            self._slots()
        with self.tell.step("the DMS shows 1.1.0, installed"):
            self._wait_for_dms("1.1.0", "installed")

    def nothing_to_do(self) -> None:
        """The newest release is not installed twice."""
        with self.tell.step("`ota` again: no update required"):
            answer = self._ok("ota")
            hold("no update required" in said(answer).lower(), "the answer does not say that no update is required")
            hold(self._get("dms.ota_result") == "2", "dms.ota_result is not 2")

    def sick_update(self) -> None:
        """A release that boots but never gets healthy leads back."""
        with self.tell.step("1.2.0 is published: it boots, but its device never gets healthy"):
            self.publish("1.2.0")
            self._start_ota("1.2.0")
        with self.tell.step("its tries are used up; the board comes back on 1.1.0 by itself"):
            self._wait_for_dms("1.1.0", "rolled_back")
            self._wait_for_version("1.1.0")
            self._slots()
        with self.tell.step("the DMS shows that it was rolled back, and why"):
            device = self.dms.device(self._uuid())
            self.tell.note(f"{device['outcome']}: {device['outcome_reason']} {device['outcome_detail']}")
            why = f"{device['outcome_reason']} {device['outcome_detail']}"
            hold("pump controller" in why, "the reason does not reach the DMS")

    def third_update(self) -> None:
        """A mended release installs."""
        with self.tell.step("1.3.0 mends it"):
            self.publish("1.3.0")
            self._ota_to("1.3.0")
            self._wait_for_dms("1.3.0", "installed")

    def tampered_server(self) -> None:
        """What the server hands out is not what was signed."""
        self.publish("1.4.0")
        before = self._get("system.boot.slot")
        for target in targets(self.world, self.dms, "1.4.0", installed=("1.1.0", "1.3.0")):
            with self.tell.step(
                f"one bit of the {target.what} of 1.4.0 is flipped on the server: refused, nothing changed"
            ):
                with flipped_bit(target):
                    answer = self.send("ota")
                hold(not answer.ok, f"an update with a flipped bit in its {target.what} was accepted")
                hold("1.3.0," in self.send("version").body, "the running release changed")
                hold(self._get("system.boot.slot") == before, "the running slot changed")
        with self.tell.step("the server is mended: 1.4.0 installs"):
            self._ota_to("1.4.0")
            self._wait_for_dms("1.4.0", "installed")

    def damaged_slot(self) -> None:
        """Bit rot in the running slot's kernel."""
        with self.tell.step(
            "the FIT of the running slot is damaged on the disk; after a power cycle the other slot boots"
        ):
            slot = self._get("system.boot.slot")
            self.board.power_cut()
            self.board.disk_flip_bit(f"kernel_{slot}", 1024 * 1024)
            self.board.power_on()
            self._wait_for_version("1.3.0")
            hold(self._get("system.boot.slot") != slot, "the damaged slot still runs")
            self._slots()

    def power_cut_while_downloading(self) -> None:
        """A download that the plug interrupts is taken up again."""
        with self.tell.step("`ota`; the power is cut in mid-download; the board comes back as it was"):
            self._cut_at(percent=30)
            self.board.power_on()
            self._wait_for_version("1.3.0")
        with self.tell.step("`ota` again goes on where it stopped and finishes"):
            self._ota_to("1.4.0")
            self._wait_for_dms("1.4.0", "installed")
            self._slots()

    # --- means ----------------------------------------------------------------------------------------------------
    def publish(self, version: str) -> None:
        """Publish a release with the tag `release`."""
        self.world.publish(version, self.dms.web_url, self.dms.account["token"])
        self.tell.note(f"published {PRODUCT}-{version}")

    def send(self, line: str, *, shown: str | None = None, timeout_s: float = UPDATE_TIMEOUT_S) -> Answer:
        """Type a line at the board's console; tell it and the answer."""
        answer = self.board.send(line, timeout_s)
        self.tell.note(f"> {shown or line}\n{_shortened(said(answer))}")
        return answer

    def _ok(self, line: str, *, shown: str | None = None) -> Answer:
        answer = self.send(line, shown=shown)
        hold(answer.ok, f"`{shown or line}` failed: {said(answer)}")
        return answer

    def _get(self, name: str) -> str:
        return self.board.send(f"get {name}").body.strip()

    def _uuid(self) -> str:
        assert self.board.options.identity is not None
        identity: dict[str, Any] = json.loads((self.board.options.identity / "identity.json").read_text())
        return str(identity["uuid"])

    def _slots(self) -> None:
        self.tell.note(self.board.send("slots").body)

    def _start_ota(self, version: str) -> None:
        answer = self._ok("ota")
        hold(version in said(answer), f"the answer does not name {version}")

    def _ota_to(self, version: str) -> None:
        self._start_ota(version)
        self._wait_for_version(version)

    def _wait_for_version(self, version: str) -> None:
        self._until(
            lambda: (
                f"{PRODUCT}-{version}," in self.board.send("version", 15).body
                and self.board.send("get system.boot.good", 15).body.strip() == "1"
            ),
            f"the board to run {version} and to be healthy",
        )

    def _wait_for_dms(self, version: str, outcome: str) -> None:
        def seen() -> bool:
            device = self.dms.device(self._uuid())
            return bool(device["version"] == version and device["outcome"] == outcome)

        self._until(seen, f"the DMS to show {version}, {outcome}")
        self.tell.note(f"DMS: {version}, {outcome}")

    @staticmethod
    def _until(condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + UPDATE_TIMEOUT_S
        while True:
            try:
                if condition():
                    return
            except (DeadlineError, MachineError):
                pass  # the board restarts
            hold(time.monotonic() < end, f"waited {UPDATE_TIMEOUT_S:.0f} s for {what}")
            time.sleep(1)

    def _cut_at(self, percent: int) -> None:
        """Type `ota`, watch its progress on the console, and cut the power when it has come that far."""

        def type_ota() -> None:
            with suppress(MachineError, BoardAssertionError):  # the console dies with the power
                self.board.send("ota", UPDATE_TIMEOUT_S)

        self.board.mark()
        typist = threading.Thread(target=type_ota)
        typist.start()
        far_enough = "|".join(str(n) for n in range(percent, 90))
        seen = self.board.wait_for_console(rf"\b({far_enough})% downloading", UPDATE_TIMEOUT_S)
        self.board.power_cut()
        self.tell.note(f"cut at {seen[1]} %")
        typist.join()


def _shortened(text: str, limit_lines: int = 12) -> str:
    lines = text.splitlines()
    return text if len(lines) <= limit_lines else "\n".join([*lines[:3], "…", *lines[-6:]])
