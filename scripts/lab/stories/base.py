"""What every story is made of: a board, a server, a publisher, and the voice that tells."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from scripts.board_driver.errors import DeadlineError, MachineError
from scripts.board_driver.machine_mode import Answer
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.dms import LabDms
from scripts.lab.narrate import Narrator, hold
from scripts.lab.places import PRODUCT
from scripts.lab.world import World

UPDATE_TIMEOUT_S: Final = 300.0
BOOT_TIMEOUT_S: Final = 180.0
HEALTHY_AFTER_S: Final = 3
DEADLINE_S: Final = 35
"""`system.boot.deadline` in the stories: how long a new release has on each of its tries."""


def said(answer: Answer) -> str:
    """Return everything an answer said: log lines and body."""
    return "\n".join([*answer.log, answer.body]).strip()


@dataclass
class Story:
    """A story: `play` tells it step by step and stops at the first one that does not hold."""

    world: World
    dms: LabDms
    board: WatchedBoard
    tell: Narrator
    versions: ClassVar[tuple[str, ...]] = ()
    """The releases that it publishes."""
    about: ClassVar[str] = ""
    """One line for the list of stories."""

    def play(self) -> None:
        """Play every step in order."""
        raise NotImplementedError

    # --- steps that stories share -------------------------------------------------------------------------------------
    def fresh_board(self) -> None:
        """A board as it leaves manufacture."""
        with self.tell.step("A fresh board boots release 1.0.0"):
            self.board.up(fresh=True)
            answer = self.board.wait_for_healthy(BOOT_TIMEOUT_S)
            self.tell.note(answer.body)
            hold(f"{PRODUCT}-1.0.0," in answer.body, "the board does not run 1.0.0")
            self.ok(f"set system.boot.deadline {DEADLINE_S}")
            self.ok(f"set system.boot.healthy_after {HEALTHY_AFTER_S}")
            self.ok("save")

    def claim(self) -> None:
        """The owner claims the device."""
        account = self.dms.account
        with self.tell.step("`dms claim` with the right one"):
            self.ok(f"dms claim {account['user']} {account['password']}", shown="dms claim demo (password)")

    def activate(self) -> None:
        """The owner binds it to a product."""
        with self.tell.step("`dms activate` binds it to the product"):
            self.ok(f"dms activate {PRODUCT}")

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

    def ok(self, line: str, *, shown: str | None = None) -> Answer:
        """As `send`, and it must succeed."""
        answer = self.send(line, shown=shown)
        hold(answer.ok, f"`{shown or line}` failed: {said(answer)}")
        return answer

    def get(self, name: str) -> str:
        """Return the value of a variable of the board."""
        return self.board.send(f"get {name}").body.strip()

    def uuid(self) -> str:
        """Return the UUID that the board got in manufacture."""
        assert self.board.options.identity is not None
        identity: dict[str, Any] = json.loads((self.board.options.identity / "identity.json").read_text())
        return str(identity["uuid"])

    def slots(self) -> None:
        """Tell what `slots` says."""
        self.tell.note(self.board.send("slots").body)

    def start_ota(self, version: str) -> None:
        """Type `ota`; it must be about `version`."""
        answer = self.ok("ota")
        hold(version in said(answer), f"the answer does not name {version}")

    def ota_to(self, version: str) -> None:
        """Update to `version` and wait until it is healthy."""
        self.start_ota(version)
        self.wait_for_version(version)

    def wait_for_version(self, version: str) -> None:
        """Wait until the board runs `version` and has marked it good."""
        self.until(
            lambda: (
                f"{PRODUCT}-{version}," in self.board.send("version", 15).body
                and self.board.send("get system.boot.good", 15).body.strip() == "1"
            ),
            f"the board to run {version} and to be healthy",
        )

    def wait_for_dms(self, version: str, outcome: str) -> None:
        """Wait until the server shows the version and the outcome of the last update."""

        def seen() -> bool:
            device = self.dms.device(self.uuid())
            return bool(device["version"] == version and device["outcome"] == outcome)

        self.until(seen, f"the DMS to show {version}, {outcome}")
        self.tell.note(f"DMS: {version}, {outcome}")

    @staticmethod
    def until(condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition` holds; a board that does not answer meanwhile is restarting."""
        end = time.monotonic() + UPDATE_TIMEOUT_S
        while True:
            try:
                if condition():
                    return
            except (DeadlineError, MachineError):
                pass  # the board restarts
            hold(time.monotonic() < end, f"waited {UPDATE_TIMEOUT_S:.0f} s for {what}")
            time.sleep(1)


def _shortened(text: str, limit_lines: int = 12) -> str:
    lines = text.splitlines()
    return text if len(lines) <= limit_lines else "\n".join([*lines[:3], "…", *lines[-6:]])
