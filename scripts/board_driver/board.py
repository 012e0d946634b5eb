"""A virtual board: its plug, its reset, its button, its lamp, its console, its disk."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.board_driver import qtest
from scripts.board_driver.deadline import Deadline
from scripts.board_driver.errors import DeadlineError, MachineError
from scripts.board_driver.machine_mode import Answer, SafeModeError, text_of
from scripts.board_driver.power import BoardOptions, PowerBoard
from scripts.board_driver.serial import ConsoleBusyError, LogReader, SerialLink, ask
from scripts.board_driver.ssh import COMMAND_USER, NO_CONNECTION, SHELL_USER, run_ssh
from scripts.board_driver.starting import StartWatch
from zentrid.core.names import GPIO_LED

__all__ = ["Board", "BoardOptions", "Progress"]

_RETRY_S: Final = 2.0

Progress = Callable[[str], None]


def _silent(_message: str) -> None:
    return


class Board(PowerBoard):
    """The board `name`. Its files outlive this object: another process can go on with the same board.

    `state_dir`: the folder of its disk; None: build/boards/<name>. Verbs raise MachineError when the machinery fails
    and BoardAssertionError when the board does not do what was asked of it.
    """

    def __init__(self, name: str = "main", options: BoardOptions | None = None, state_dir: Path | None = None) -> None:
        super().__init__(name, options, state_dir)
        self._start_watch: StartWatch | None = None

    def led(self) -> bool:
        """Return whether the lamp (GPIO 1) is lit: the board drives the line, and drives it high."""
        self._powered_state()
        gpio = qtest.read_gpio(self.run.qtest)
        return gpio.is_output(GPIO_LED) and gpio.level(GPIO_LED)

    def wait_for_led(self, *, on: bool, timeout_s: float = 30) -> None:
        """Wait until the lamp is lit (`on`) or dark."""
        word = "on" if on else "off"
        deadline = Deadline(timeout_s, f"the lamp to be {word}")
        while self.led() != on:
            deadline.check("it is off" if on else "it is on")
            time.sleep(deadline.slice_s(0.05))

    # --- talking to it ------------------------------------------------------------------------------------------------
    def send(self, line: str, timeout_s: float = 30) -> Answer:
        """Run one command line and return its answer: over the serial console, or over SSH if that is in use."""
        self._powered_state()
        deadline = Deadline(timeout_s, f"the answer to {line!r}")
        try:
            with SerialLink(self.run) as link:
                return ask(link, line, deadline, lambda: self._starting().wait(deadline))
        except ConsoleBusyError:
            try:
                return self.send_over_ssh(line, deadline.slice_s(deadline.timeout_s))
            except MachineError as error:
                raise MachineError(
                    f"somebody else uses the serial console (leave it with Ctrl-]), and {error}"
                ) from error

    def send_over_ssh(self, line: str, timeout_s: float = 30) -> Answer:
        """Run one command line over SSH, whoever uses the serial console; return its answer."""
        state = self._powered_state()
        done = run_ssh(state.ssh_port, self.options.key, COMMAND_USER, line, timeout_s)
        if done.returncode == NO_CONNECTION:
            raise MachineError(f"SSH does not get to the board: {done.stderr.strip()}")
        log = tuple(done.stderr.splitlines())
        return Answer(done.returncode, text_of(done.stdout.encode()), log)

    def shell(self, line: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root over SSH (development builds); the exit status 255 means: no connection."""
        return run_ssh(self._powered_state().ssh_port, self.options.key, SHELL_USER, line, timeout_s)

    def wait_for_answer(self, timeout_s: float = 180, progress: Progress = _silent) -> Answer:
        """Wait until the board answers `version`, healthy or not, in safe mode or not; return the answer."""
        deadline = Deadline(timeout_s, f"board {self.name} to answer `version`")
        while self._starting().starting():
            self._check_process()
            deadline.check("the board is still starting; see `scripts/board log`")
            time.sleep(deadline.slice_s(0.1))
        progress("the console is there")
        while True:
            self._check_process()
            try:
                answer = self.send("version", deadline.slice_s(20))
                if answer.ok:
                    return answer
                last = f"it answered code {answer.code}: {answer.body}"
            except DeadlineError as error:
                last = str(error)
            deadline.check(last)
            time.sleep(deadline.slice_s(_RETRY_S))

    def _check_process(self) -> None:
        if not self.powered:
            said = LogReader(self.run.qemu_log).read()[-500:].decode(errors="replace").strip()
            raise MachineError(f"QEMU has ended by itself: {said or 'it said nothing'}")

    def _starting(self) -> StartWatch:
        """Return the watch for the last power-on or reset, whoever did that."""
        state = self._powered_state()
        if self._start_watch is None or self._start_watch.offset != state.log_offset:
            self._start_watch = StartWatch(self.run.serial_log, state.log_offset, state.since_unix_s)
        return self._start_watch

    def wait_for_healthy(self, timeout_s: float = 180, progress: Progress = _silent) -> Answer:
        """Wait until the board has marked this boot good; return its answer to `version`.

        SafeModeError at once if it is in safe mode, where there is no such thing.
        """
        deadline = Deadline(timeout_s, f"board {self.name} to become healthy")
        version = self.wait_for_answer(timeout_s, progress)
        progress("it answers; waiting until it finds itself healthy")
        while True:
            if version.safe_mode:
                raise SafeModeError(version)
            good = self.send("get system.boot.good", deadline.slice_s(30))
            if good.ok and good.body.strip() == "1":
                return self.send("version", 30)
            deadline.check(f"`get system.boot.good` says {good.body!r}")
            time.sleep(deadline.slice_s(0.5))

    # --- the disk, while the power is off -----------------------------------------------------------------------------
    def _require_off(self) -> None:
        if self.powered:
            raise MachineError("the disk can be touched from outside only while the power is off; `power cut` first")

    def disk_read(self, partition: str, offset_bytes: int, count: int) -> bytes:
        """Return `count` bytes at `offset_bytes` of a partition."""
        self._require_off()
        return self.disk.overlay.read_partition(partition, offset_bytes, count)

    def disk_write(self, partition: str, offset_bytes: int, data: bytes) -> None:
        """Write `data` at `offset_bytes` of a partition."""
        self._require_off()
        self.disk.overlay.write_partition(partition, offset_bytes, data)

    def disk_flip_bit(self, partition: str, offset_bytes: int, bit: int = 0) -> None:
        """Turn over bit `bit` of the byte at `offset_bytes` of a partition."""
        self._require_off()
        self.disk.overlay.flip_bit(partition, offset_bytes, bit)
