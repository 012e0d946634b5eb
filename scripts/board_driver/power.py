"""The power of a virtual board: up, down, power on and cut, reset; one QEMU process while the power is on."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from scripts.board_driver import places, process, qtest
from scripts.board_driver.deadline import Deadline
from scripts.board_driver.disk import BoardDisk
from scripts.board_driver.errors import MachineError
from scripts.board_driver.machine import DirectStart, QemuConfig, RunFolder, command_line
from scripts.board_driver.ports import check_port, free_port
from scripts.board_driver.qmp import Qmp
from scripts.board_driver.serial import LogReader
from scripts.board_driver.state import DiskRecord, RunState, StateDamagedError
from zentrid.core.names import GPIO_FACTORY_RESET

START_TIMEOUT_S: Final = 30.0
PORT_ATTEMPTS: Final = 5
MAX_HOLD_S: Final = 600.0
_REASSERT_S: Final = 0.1


@dataclass(frozen=True)
class BoardOptions:
    """How a board is to be started; all that a person or a test may choose."""

    image: Path | None = None
    identity: Path | None = None
    key: Path = places.DEFAULT_KEY
    ssh_port: int | None = None
    http_port: int | None = None
    bound: bool = True
    """QEMU dies with this process."""
    write_log: Path | None = None
    """See QemuConfig."""
    direct: DirectStart | None = None
    """See QemuConfig."""
    extra: tuple[str, ...] = field(default=())
    """More QEMU arguments."""


def _has_content(path: Path | None) -> bool:
    return path is not None and path.exists() and path.stat().st_size > 0


class PowerBoard:
    """The part of a board that has to do with its power; see Board."""

    def __init__(self, name: str = "main", options: BoardOptions | None = None, state_dir: Path | None = None) -> None:
        self.name = places.check_name(name)
        self.options = options or BoardOptions()
        self.run: RunFolder = places.run_folder(name)
        self.disk = BoardDisk((state_dir or self._recorded_state_dir() or places.DEFAULT_STATE_ROOT / name).resolve())
        self._child: subprocess.Popen[bytes] | None = None

    def _recorded_state_dir(self) -> Path | None:
        """Return where the disk of a board is that somebody else has started."""
        try:
            state = self.state()
        except StateDamagedError:
            return None
        return Path(state.state_dir) if state is not None else None

    # --- state ------------------------------------------------------------------------------------------------------
    def state(self) -> RunState | None:
        """Return what is known of the board that is up; None: it is down. StateDamagedError if the file is damaged."""
        return RunState.load(self.run.state)

    @property
    def powered(self) -> bool:
        """Whether the power is on."""
        state = self.state()
        return state is not None and state.process is not None

    def _up_state(self) -> RunState:
        state = self.state()
        if state is None:
            raise MachineError(f"board {self.name} is down; `scripts/board up --name {self.name}` starts it")
        return state

    def _powered_state(self) -> RunState:
        state = self._up_state()
        if state.process is None:
            raise MachineError(f"board {self.name} has no power; `scripts/board power on --name {self.name}`")
        return state

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the board's lock while its power changes: two at once would start two QEMUs on one disk."""
        descriptor = os.open(self.run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # --- power ------------------------------------------------------------------------------------------------------
    def up(self, *, fresh: bool = False, button_hold_s: float = 0) -> RunState:
        """Make the disk if there is none (or `fresh`), and switch the board on. What is on stays as it is."""
        with self._changing():
            state = self.state()
            if state is not None and fresh:
                self._end(state)
                state = None
            if state is None:
                record = self.disk.prepare(self.options.image, self.options.identity, fresh=fresh)
                self._keep_old_log()
                state = self._first_state(record)
            if state.process is not None:
                return state
            state = self._start(state, button_hold_s)
        if button_hold_s:
            self.hold_button(button_hold_s)
        return state

    def _first_state(self, record: DiskRecord) -> RunState:
        return RunState(
            name=self.name, pid=None, start_ticks=None, image=record.backing, state_dir=str(self.disk.folder),
            ssh_port=check_port(self.options.ssh_port) if self.options.ssh_port else free_port(),
            http_port=check_port(self.options.http_port) if self.options.http_port else free_port(),
            log_offset=0, since_unix_s=time.time(), bound=self.options.bound,
        )  # fmt: skip

    def _keep_old_log(self) -> None:
        """Begin a new serial log; the one before stays as serial.log.1."""
        if self.run.serial_log.exists():
            self.run.serial_log.replace(self.run.path / "serial.log.1")
        self.run.qemu_log.unlink(missing_ok=True)

    def power_on(self, *, button_hold_s: float = 0, released: threading.Event | None = None) -> RunState:
        """Switch the power of a board on that is up; with `button_hold_s` the button is down from before the start.

        `released`: see `hold_button`.
        """
        with self._changing():
            state = self._up_state()
            if state.process is not None:
                raise MachineError(f"the power of board {self.name} is on already")
            state = self._start(state, button_hold_s)
        if button_hold_s:
            self.hold_button(button_hold_s, released)
        return state

    def power_cut(self) -> None:
        """Take the power away: QEMU ends by SIGKILL, nothing is finished or told.

        This is not quite a plug: what the board has written is in the host's page cache and survives, also without a
        flush by the board (only what QEMU still held itself is gone). What a real disk may lose is tried with recorded
        writes, see QemuConfig.write_log.
        """
        with self._changing():
            state = self._powered_state()
            self._kill(state)
            replace(state, pid=None, start_ticks=None).save(self.run.state)

    def power_cycle(self, *, off_s: float = 0, button_hold_s: float = 0) -> RunState:
        """Cut the power, wait `off_s` seconds, switch it on again."""
        self.power_cut()
        time.sleep(off_s)
        return self.power_on(button_hold_s=button_hold_s)

    def reset(self) -> None:
        """Pull the reset line: a warm start, RAM keeps its content."""
        with self._changing():
            state = self._powered_state()
            replace(state, log_offset=self._log_size(), since_unix_s=time.time()).save(self.run.state)
            with Qmp(self.run.qmp) as qmp:
                qmp.command("system_reset")

    def _log_size(self) -> int:
        return self.run.serial_log.stat().st_size if self.run.serial_log.exists() else 0

    def down(self) -> bool:
        """Switch the board off and put it away; its disk and serial log stay. False if it was down already.

        For the board this is a power cut. With a damaged state file QEMU is asked to go by its socket.
        """
        with self._changing():
            try:
                state = self.state()
            except StateDamagedError:
                self._quit_unknown()
                self._clean_up()
                return True
            if state is None:
                return False
            self._end(state)
            return True

    def remove_run_folder(self) -> None:
        """Remove the sockets and logs of a board that is down. MachineError if it is up."""
        if self.state() is not None:
            raise MachineError(f"board {self.name} is up; `scripts/board down --name {self.name}` first")
        shutil.rmtree(self.run.path)

    def _end(self, state: RunState) -> None:
        self._kill(state)
        self._clean_up()

    def _kill(self, state: RunState) -> None:
        if state.process is not None:
            state.process.kill()
        self._reap()

    def _reap(self) -> None:
        """Take the exit status of a QEMU that this object started and that has ended."""
        if self._child is not None:
            self._child.wait(10)
            self._child = None

    def _quit_unknown(self) -> None:
        # No QEMU behind the socket is what is wanted, too.
        with suppress(MachineError), Qmp(self.run.qmp, timeout_s=3) as qmp:
            qmp.command("quit")
        self._reap()

    def _clean_up(self) -> None:
        for path in (self.run.state, self.run.qmp, self.run.qtest, self.run.serial):
            path.unlink(missing_ok=True)

    def _start(self, state: RunState, button_hold_s: float) -> RunState:
        """Start QEMU for a board without power, save the new state. Other ports are tried if somebody took these."""
        for attempt in range(PORT_ATTEMPTS):
            try:
                return self._start_once(state, button_hold_s)
            except MachineError as error:
                chosen = self.options.ssh_port or self.options.http_port
                if "host forwarding" not in str(error) or chosen or attempt == PORT_ATTEMPTS - 1:
                    raise
                state = replace(state, ssh_port=free_port(), http_port=free_port())
        raise AssertionError("the last attempt either returns or raises")

    def _start_once(self, state: RunState, button_hold_s: float) -> RunState:
        record = self.disk.record()
        if record is None:
            raise MachineError("the record of this board's disk is gone; `scripts/board up --fresh` makes a new disk")
        record.check_backing()
        write_log = self.options.write_log
        config = QemuConfig(
            rom=Path(record.rom), disk=self.disk.overlay.path, run=self.run,
            ssh_port=state.ssh_port, http_port=state.http_port, mac=record.mac,
            paused=button_hold_s > 0, write_log=write_log,
            append_write_log=_has_content(write_log),
            direct=self.options.direct,
            extra=self.options.extra,
        )  # fmt: skip
        if write_log is not None:
            write_log.touch()
        offset = self._log_size()
        log_begin = self.run.qemu_log.stat().st_size if self.run.qemu_log.exists() else 0
        self.run.qmp.unlink(missing_ok=True)
        command = command_line(config)
        self._reap()
        if self.options.bound:
            self._child = process.start_bound(command, self.run.qemu_log)
            pid = self._child.pid
        else:
            pid = process.start_detached(command, self.run.qemu_log)
        found = process.ProcessId.of(pid)
        state = replace(
            state,
            pid=pid,
            start_ticks=found.start_ticks if found else 0,
            log_offset=offset,
            since_unix_s=time.time(),
            bound=self.options.bound,
        )
        self._wait_for_qemu(state, log_begin)
        state.save(self.run.state)
        if button_hold_s:
            self._set_button(pressed=True)
            with Qmp(self.run.qmp) as qmp:
                qmp.command("cont")
        return state

    def _wait_for_qemu(self, state: RunState, log_begin: int) -> None:
        limit = Deadline(START_TIMEOUT_S, "QEMU")
        while True:
            if state.process is None:
                self._reap()
                said = LogReader(self.run.qemu_log, log_begin).read().decode(errors="replace").strip()
                raise MachineError(f"QEMU did not start: {said[-800:] or 'it said nothing'}")
            try:
                with Qmp(self.run.qmp, timeout_s=limit.slice_s(START_TIMEOUT_S)):
                    return
            except MachineError as error:
                if limit.expired:
                    self._kill(state)
                    raise MachineError(f"QEMU does not answer after {START_TIMEOUT_S:g} s: {error}") from error
            time.sleep(0.02)

    # --- the button, which can be down from before the start ----------------------------------------------------------
    def _set_button(self, *, pressed: bool) -> None:
        with Qmp(self.run.qmp) as qmp:
            device = qmp.find_device("pl061")
        qtest.set_input(self.run.qtest, device, GPIO_FACTORY_RESET, high=pressed)

    @contextmanager
    def button_held(self) -> Iterator[None]:
        """Hold the factory-reset button (GPIO 0) down inside the context."""
        self._powered_state()
        self._set_button(pressed=True)
        try:
            yield
        finally:
            if self.powered:
                self._set_button(pressed=False)

    def hold_button(self, hold_s: float, released: threading.Event | None = None) -> None:
        """Press the factory-reset button (GPIO 0) for `hold_s` seconds; it stays down across resets of the board.

        `released`: when it is set, the finger goes earlier.
        """
        released = released or threading.Event()
        if not 0 < hold_s <= MAX_HOLD_S:
            raise ValueError(f"the button can be held for more than 0 and at most {MAX_HOLD_S:g} s")
        with self.button_held():
            limit = Deadline(hold_s, "the button")
            while not limit.expired and self.powered and not released.wait(limit.slice_s(_REASSERT_S)):
                # A reset of the board clears QEMU's idea of the line, but a finger stays where it is.
                self._set_button(pressed=True)
