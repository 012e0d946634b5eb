"""A board under test: the verbs that tests speak in, and a console that is watched from the first byte to the last."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.board_driver.board import Board, BoardOptions, Progress
from scripts.board_driver.deadline import Deadline
from scripts.board_driver.errors import BoardAssertionError, BrokenBoardError, MachineError
from scripts.board_driver.machine_mode import Answer
from scripts.board_driver.ssh import NO_CONNECTION
from scripts.board_driver.starting import BANNER as START_BANNER
from scripts.board_driver.state import RunState
from scripts.board_driver.watch import BANNER, ConsoleWatch, Hit


class WatchedBoard(Board):
    """A board for one test, or for many that share it. Use as a context manager: it is down afterwards.

    Every verb first looks at the console; BadConsoleError if something bad was there since the verb before. The first
    such failure is kept, and so is a QEMU that does not start or ends by itself: every later verb raises
    BrokenBoardError from it, so that a dead board explains itself in each test that shares it.
    """

    def __init__(self, name: str, options: BoardOptions | None = None, state_dir: Path | None = None) -> None:
        super().__init__(name, options, state_dir)
        self.first_failure: BaseException | None = None
        self.console_text = ""
        """What the console has printed; complete once the board is down."""
        self._watch: ConsoleWatch | None = None
        self._power_wanted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None and self.first_failure is None:
            self.check()

    def close(self) -> None:
        """End QEMU and the watch. Never raises for what the board did; `check()` does."""
        self.down()
        self._stop_watch()

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self.console_text = self._watch.text

    @contextmanager
    def _verb(self) -> Iterator[None]:
        """Surround a verb: nothing is asked of a broken board, and what breaks it is kept."""
        if self.first_failure is not None:
            raise BrokenBoardError(f"this board failed before: {self.first_failure}") from self.first_failure
        try:
            if self._watch is not None:
                self._watch.check()
            yield
            if self._watch is not None:
                self._watch.check()
        except MachineError as error:
            if self._power_wanted and not self.powered:
                self.first_failure = error
            raise
        except BoardAssertionError as error:
            # A bad console often shows itself as something that never came: tell the cause, not the symptom.
            self._check_console(error)
            raise

    def _check_console(self, symptom: BoardAssertionError) -> None:
        try:
            if self._watch is not None:
                self._watch.check()
        except BoardAssertionError as cause:
            self.first_failure = cause
            if cause is symptom:
                return
            raise cause from symptom

    def check(self) -> None:
        """Raise BadConsoleError if the console has shown something bad."""
        with self._verb():
            pass

    def expecting(self, *patterns: str) -> AbstractContextManager[list[Hit]]:
        """Inside the context the bad console patterns called `patterns` (see watch.BAD_PATTERNS) are in order."""
        return self._console.expecting(*patterns)

    @property
    def _console(self) -> ConsoleWatch:
        if self._watch is None:
            raise MachineError("this board has not been up yet; call up() first")
        return self._watch

    # --- power, with the banners that it makes legitimate -----------------------------------------------------------
    def up(self, *, fresh: bool = False, button_hold_s: float = 0) -> RunState:
        """As Board.up; the watch begins."""
        with self._verb():
            if self._watch is None or self.state() is None:
                self._stop_watch()
                # Begin with an empty log: what an earlier life of this board said is not this test's business.
                self._keep_old_log()
                self._watch = ConsoleWatch(self.run.serial_log)
            if not self.powered or fresh:
                self._watch.allow_start(cold=True)
            self._power_wanted = True
            return super().up(fresh=fresh, button_hold_s=button_hold_s)

    def power_on(self, *, button_hold_s: float = 0, released: threading.Event | None = None) -> RunState:
        """As Board.power_on."""
        with self._verb():
            if not self.powered:
                self._console.allow_start(cold=True)
            self._power_wanted = True
            return super().power_on(button_hold_s=button_hold_s, released=released)

    def power_cut(self) -> None:
        """As Board.power_cut."""
        with self._verb():
            self._power_wanted = False
            super().power_cut()

    def down(self) -> bool:
        """As Board.down; a broken board, too, can be put away."""
        self._power_wanted = False
        return super().down()

    def reset(self) -> None:
        """As Board.reset."""
        with self._verb():
            self._console.allow_start(cold=False)
            super().reset()

    def reboot(self, timeout_s: float = 180) -> Answer:
        """Run `reboot`, wait until the board has started again and answers; return its answer to `version`."""
        deadline = Deadline(timeout_s, "the reboot")
        with self.expecting(BANNER):
            self.mark()
            self.send("reboot", deadline.slice_s(30)).expect_ok()
            self.wait_for_console(START_BANNER.pattern, deadline.slice_s(timeout_s))
        return self.wait_for_answer(deadline.slice_s(timeout_s))

    @property
    def console_text_now(self) -> str:
        """What the console has printed until now."""
        return self._console.text

    # --- the console ------------------------------------------------------------------------------------------------
    def mark(self) -> None:
        """Let the next wait_for_console begin here: what is on the console now counts no more."""
        self._console.skip()

    def wait_for_console(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """Wait until the regular expression `pattern` appears on the console after the last match (or mark())."""
        with self._verb():
            return self._console.wait_for(pattern, Deadline(timeout_s, f"{pattern!r} on the console"))

    def send(self, line: str, timeout_s: float = 30) -> Answer:
        """As Board.send."""
        with self._verb():
            return super().send(line, timeout_s)

    def wait_for_answer(self, timeout_s: float = 180, progress: Progress = lambda _message: None) -> Answer:
        """As Board.wait_for_answer."""
        with self._verb():
            return super().wait_for_answer(timeout_s, progress)

    def wait_for_healthy(self, timeout_s: float = 180, progress: Progress = lambda _message: None) -> Answer:
        """As Board.wait_for_healthy."""
        with self._verb():
            return super().wait_for_healthy(timeout_s, progress)

    # --- shell commands as root -------------------------------------------------------------------------------------
    def execute(self, command: str, timeout_s: float = 60) -> tuple[int, str]:
        """Run a shell command on the board; return its exit status and both outputs. BoardAssertionError without SSH."""
        with self._verb():
            done = self.shell(command, timeout_s)
            output = done.stdout + done.stderr
            if done.returncode == NO_CONNECTION:
                raise BoardAssertionError(f"no SSH connection to the board for {command!r}: {output.strip()}")
            return done.returncode, output

    def succeed(self, command: str, timeout_s: float = 60) -> str:
        """Run a shell command that must succeed; return its output."""
        status, output = self.execute(command, timeout_s)
        if status:
            raise BoardAssertionError(f"{command!r} ended with {status} on the board: {output.strip()[-2000:]}")
        return output

    def fail(self, command: str, timeout_s: float = 60) -> str:
        """Run a shell command that must fail; return its output."""
        status, output = self.execute(command, timeout_s)
        if not status:
            raise BoardAssertionError(f"{command!r} succeeded on the board, but should have failed: {output.strip()}")
        return output

    def wait_until_succeeds(self, command: str, timeout_s: float = 60) -> str:
        """Repeat a shell command until it succeeds; return its output. No connection counts as no success."""
        return self._wait_until(command, timeout_s, success=True)

    def wait_until_fails(self, command: str, timeout_s: float = 60) -> str:
        """Repeat a shell command until it fails; return its output. No connection counts as nothing."""
        return self._wait_until(command, timeout_s, success=False)

    def _wait_until(self, command: str, timeout_s: float, *, success: bool) -> str:
        deadline = Deadline(timeout_s, f"{command!r} to {'succeed' if success else 'fail'} on the board")
        while True:
            with self._verb():
                done = self.shell(command, deadline.slice_s(timeout_s) + 5)
            if done.returncode != NO_CONNECTION and (done.returncode == 0) == success:
                return done.stdout + done.stderr
            deadline.check(f"it ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
            time.sleep(deadline.slice_s(0.5))
