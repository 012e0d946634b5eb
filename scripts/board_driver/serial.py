"""The serial console: typing on it (one user at a time) and reading what it printed (anybody, any time)."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from scripts.board_driver.deadline import Deadline
from scripts.board_driver.errors import MachineError
from scripts.board_driver.machine import RunFolder
from scripts.board_driver.machine_mode import Answer, Frame, MachineParser, answer_of, check_line
from scripts.board_driver.qtest import unstick_uart

SYNC_ATTEMPT_S: Final = 4.0
QUIET_S: Final = 0.4
RESTORE_S: Final = 5.0
_MACHINE: Final = b"set system.cmd.format machine\r\n"
_CLEAR: Final = b"\x15\x0b\r\n"
"""Ctrl-U and Ctrl-K throw away what somebody left half typed; in machine mode only the line end ends it."""
_HUMAN: Final = b"set system.cmd.format human\r\n"
_SAVE: Final = "save"
_ANSWERED: Final = re.compile(rb"save\r\n(.*?)\r\n(?:SAFEMODE)?> ", re.DOTALL)
_RESTARTING: Final = ("reboot", "factory_reset", "fac", "force_safemode")
"""After these the board does not listen any more, and starts in human mode."""


class ConsoleBusyError(MachineError):
    """Somebody else uses the serial console."""


class SerialLink:
    """The serial console for one user. Use as a context manager; ConsoleBusyError if it is taken.

    Whoever holds it must read: QEMU stops the board when nobody takes what it prints to a connected user.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def __enter__(self) -> SerialLink:
        self._lock = os.open(self._run.console_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._socket.connect(str(self._run.serial))
        except BlockingIOError as error:
            self.close()
            raise ConsoleBusyError("somebody else uses the serial console; leave the other one with Ctrl-]") from error
        except OSError as error:
            self.close()
            raise MachineError(f"the serial console is not there ({error}); is the board's power on?") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the console up."""
        self._socket.close()
        os.close(self._lock)

    def fileno(self) -> int:
        """Return the socket's descriptor, for select()."""
        return self._socket.fileno()

    def unstick(self) -> bool:
        """Make the board hear again if its UART has gone deaf, see qtest.unstick_uart; return whether it had."""
        with suppress(MachineError):
            return unstick_uart(self._run.qtest)
        return False

    def send(self, data: bytes) -> None:
        """Type `data`."""
        self._socket.settimeout(10)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise MachineError(f"the serial console is gone ({error}); the power was cut") from error

    def receive(self, timeout_s: float) -> bytes:
        """Return what the board printed, at most 64 KiB; empty if nothing came in `timeout_s`.

        MachineError when the power is cut.
        """
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return b""
        except OSError as error:
            raise MachineError(f"the serial console is gone ({error}); the power was cut") from error
        if not data:
            raise MachineError("the serial console is gone; the power was cut")
        return data


def ask(link: SerialLink, line: str, deadline: Deadline, ready: Callable[[], None] = lambda: None) -> Answer:
    """Run one command line in machine mode; leave the console in human mode. DeadlineError if no answer comes.

    `ready` is called before anything is typed, and may wait.
    """
    typed = check_line(line)
    parser = MachineParser()
    _synchronise(link, parser, deadline, ready)
    if line.split()[0] == _SAVE:
        return _ask_as_a_person(link, typed, deadline)
    link.send(typed)
    frames: list[Frame] = []
    while not (frames and frames[-1].is_answer):
        if deadline.expired:
            raise deadline.error(_seen(parser))
        new = parser.feed(link.receive(deadline.slice_s(1)))
        frames += new[: 1 + next((i for i, frame in enumerate(new) if frame.is_answer), len(new))]
    if line.split()[0] not in _RESTARTING:
        _restore(link)
    return answer_of(frames)


def _ask_as_a_person(link: SerialLink, typed: bytes, deadline: Deadline) -> Answer:
    """Run `save` in human mode: in machine mode it would save machine mode, and the console would keep it for ever."""
    _restore(link)
    seen = b""
    link.send(typed)
    while not (end := _ANSWERED.search(seen)):
        if deadline.expired:
            raise deadline.error(f"the console said last: {seen[-200:]!r}")
        seen += link.receive(deadline.slice_s(1))
    lines = end[1].decode(errors="replace").replace("\r\n", "\n").strip().splitlines()
    return Answer(0 if lines[-1:] == ["Success"] else 1, "\n".join(lines[-1:]), tuple(lines[:-1]))


def _synchronise(link: SerialLink, parser: MachineParser, deadline: Deadline, ready: Callable[[], None]) -> None:
    """Get the console into machine mode, whatever was typed or said before."""
    attempt = 0
    while True:
        attempt += 1
        ready()
        link.send(_CLEAR + _MACHINE)
        limit = Deadline(deadline.slice_s(SYNC_ATTEMPT_S), "machine mode")
        while not limit.expired:
            if any(
                frame.is_answer and frame.code == 0 and frame.body == b"Set OK\r\n"
                for frame in parser.feed(link.receive(limit.slice_s(1)))
            ):
                if attempt > 1:
                    _drain(link, parser)
                return
        deadline.check(_seen(parser))
        link.unstick()


def _drain(link: SerialLink, parser: MachineParser) -> None:
    """Swallow the answers to earlier attempts: nothing for a moment means that there are no more."""
    limit = Deadline(5, "silence")
    while not limit.expired and (data := link.receive(QUIET_S)):
        parser.feed(data)


def _restore(link: SerialLink) -> None:
    """Give the console back to people. Best effort: the command may have ended the console, the board or the power."""
    limit = Deadline(RESTORE_S, "human mode")
    seen = b""
    try:
        link.send(_HUMAN)
        while b"Set OK\r\n" not in seen and not limit.expired:
            seen += link.receive(limit.slice_s(1))
    except MachineError:
        return


def _seen(parser: MachineParser) -> str:
    tail = parser.noise[-200:].decode(errors="replace").strip()
    return f"the console said last: {tail!r}" if tail else "the console said nothing"


class LogReader:
    """Reads a growing file from `offset` on."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset

    def read(self, most_bytes: int = 1024 * 1024) -> bytes:
        """Return what is new; empty if nothing is, or there is no such file yet."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self.offset)
                data = stream.read(most_bytes)
        except FileNotFoundError:
            return b""
        self.offset += len(data)
        return data
