"""The login shell: a thin bridge from a terminal to the command line's local socket.

`python3 -m zentrid.shell` is interactive; `-c LINE` carries out one line and exits with its code. What a command takes besides
its line comes from standard input. Imports little, because it must start fast; the command language itself lives in the daemon.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import tty

SOCKET_PATH = "/run/zentrid/console.sock"
HEADER_BYTES = 9
MAX_LINE_BYTES = 2048
CONNECT_TIMEOUT_S = 10.0
TAKE_BYTES = frozenset({"file_create", "fcr", "stream_write", "write", "http_post", "hpo"})
"""Commands whose lines bytes may follow: standard input is sent along."""
GIVE_BYTES = frozenset({"stream_read", "read"})
"""Commands whose answers are bytes, and not text."""
EXIT_UNAVAILABLE = 69
EXIT_INTERRUPTED = 130


def _pass_interrupt_on(connection: socket.socket) -> None:
    """Let the first Ctrl-C cancel the command, whose answer still comes; the second one ends this process."""

    def interrupted(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        connection.sendall(b"\x03")

    signal.signal(signal.SIGINT, interrupted)


class _Frames:
    """The blocks of a machine-mode stream; meanwhile bytes from `source` are passed on, if there is one."""

    def __init__(self, connection: socket.socket, source: int | None = None) -> None:
        self._connection = connection
        self._source = source
        self._buffer = b""

    def next(self) -> tuple[bytes, int, bytes]:
        """Return kind, code and body; raises ConnectionError at the stream's end and at bytes that are no header."""
        size_bytes = HEADER_BYTES
        while True:
            header = self._buffer[:HEADER_BYTES]
            if len(header) == HEADER_BYTES:
                if header[:1] not in (b"R", b"S", b"L") or not header[1:7].isdigit():
                    raise ConnectionError
                size_bytes = HEADER_BYTES + int(header[2:7])
                if len(self._buffer) >= size_bytes:
                    break
            self._pass_on()
            data = self._connection.recv(65536)
            if not data:
                raise ConnectionError
            self._buffer += data
        body, self._buffer = self._buffer[HEADER_BYTES:size_bytes], self._buffer[size_bytes:]
        return header[:1], int(header[1:2]), body

    def _pass_on(self) -> None:
        """Send what comes from the source until there is something to receive."""
        while self._source is not None:
            sources: list[socket.socket | int] = [self._connection, self._source]
            ready, _, _ = select.select(sources, [], [])
            if self._connection in ready:
                return
            data = os.read(self._source, 16384)
            try:
                self._connection.sendall(data)
                if not data:
                    self._connection.shutdown(socket.SHUT_WR)
            except OSError:
                data = b""  # it has heard enough; the answer tells why
            if not data:
                self._source = None


_Settings = list[int | list[bytes | int]]


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_TIMEOUT_S)
    connection.connect(path)
    connection.settimeout(None)
    return connection


def _write(fd: int, data: bytes) -> None:
    """Write all of it; an output that was closed is no error worth telling."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [])


def run_line(line: str, path: str = SOCKET_PATH) -> int:
    """Carry out one line in a fresh machine-mode session; print the body, log text to stderr; return the code."""
    raw = os.fsencode(line)
    if b"\n" in raw or b"\r" in raw:
        _write(2, b"Only one line can be carried out at a time.\n")
        return 2
    if len(raw) > MAX_LINE_BYTES:
        _write(2, f"The line is longer than {MAX_LINE_BYTES} bytes; send a shorter one.\n".encode())
        return 8
    if not raw.strip():
        return 0
    name = line.split()[0].strip('"')
    with _connect(path) as connection:
        connection.sendall(b"\0once\n" + raw + b"\r\n")
        if name in TAKE_BYTES:  # a Ctrl-C would be one byte more, so it ends this process instead
            frames = _Frames(connection, 0)
        else:
            frames = _Frames(connection)
            _pass_interrupt_on(connection)
        while True:
            kind, code, body = frames.next()
            if kind == b"L":
                _write(2, body.replace(b"\r\n", b"\n"))
                continue
            as_it_is = name in GIVE_BYTES and not code
            _write(1, body.removesuffix(b"\r\n") if as_it_is else body.replace(b"\r\n", b"\n"))
            return code


def bridge(connection: socket.socket, source: int = 0, target: int = 1) -> None:
    """Pass bytes between the terminal and the connection until the daemon closes; the end of input is passed on too."""
    sources: list[socket.socket | int] = [connection, source]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if source in ready:
            data = os.read(source, 4096)
            if data:
                connection.sendall(data)
            else:
                sources.remove(source)
                connection.shutdown(socket.SHUT_WR)
        if connection in ready:
            data = connection.recv(65536)
            if not data:
                return
            _write(target, data)


def interactive(path: str = SOCKET_PATH) -> int:
    """Be a terminal of the command line; the terminal's settings are put back at the end, however it ends."""
    saved = termios.tcgetattr(0) if os.isatty(0) else None
    with _connect(path) as connection:
        connection.sendall(b"\0human\n")
        try:
            if saved is not None:
                tty.setraw(0, termios.TCSANOW)
            bridge(connection)
        finally:
            if saved is not None:
                _restore(saved)
    return 0


def _restore(saved: _Settings) -> None:
    """Put the terminal's settings back; a terminal that is gone needs none."""
    try:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)
    except termios.error:
        return


def _ended(number: int, _frame: object) -> None:
    """Turn a signal into an ordinary exit, so that the terminal is put back."""
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    """Run the shell; the exit status is the command's code, or 69 if the daemon cannot be reached."""
    given = sys.argv[1:] if arguments is None else arguments
    path = os.environ.get("ZENTRI_CONSOLE_SOCKET", SOCKET_PATH)
    if given and (given[0] != "-c" or len(given) != 2):
        _write(2, b"Usage: zentrid.shell [-c LINE]\n")
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    try:
        return run_line(given[1], path) if given else interactive(path)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (ConnectionError, TimeoutError):
        _write(2, b"The command line closed the connection or does not answer; try again in a moment.\n")
    except FileNotFoundError:
        _write(2, b"The command line is not running yet; try again in a moment.\n")
    except OSError as error:
        _write(2, f"The command line cannot be reached: {error.strerror or error}.\n".encode())
    return EXIT_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
