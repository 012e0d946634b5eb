"""QEMU's control socket (QMP): one short connection for each piece of work, because QEMU serves one client at a time.

Plain blocking sockets, not an event loop: the same calls must work from a command line, from any thread of a test, and
inside a test that runs an event loop of its own.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from scripts.board_driver.errors import MachineError
from scripts.board_driver.turn import connect

MAX_LINE_BYTES: Final = 4 * 1024 * 1024


class Qmp:
    """A connection to the control socket at `path`, past the handshake. Use as a context manager.

    Every wait is limited to `timeout_s`. MachineError if QEMU is not there, does not answer or refuses.
    """

    def __init__(self, path: Path, timeout_s: float = 10) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def __enter__(self) -> Qmp:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(self._timeout_s)
        try:
            connect(self._socket, self._path, self._timeout_s)
            self._file = self._socket.makefile("rb")
            self._read()  # the greeting
            self.command("qmp_capabilities")
        except (OSError, MachineError) as error:
            self.__exit__(None, None, None)
            raise MachineError(f"QEMU does not answer on {self._path} ({error}); is the board up?") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._file.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise MachineError(f"QEMU did not answer in {self._timeout_s:g} s") from error
        if not line.endswith(b"\n"):
            raise MachineError("QEMU closed the control socket")
        reply = json.loads(line)
        if not isinstance(reply, dict):
            raise MachineError("QEMU's answer is not an object")
        return reply

    def command(self, name: str, **arguments: object) -> Any:  # noqa: ANN401 - the shape depends on the command
        """Run one QMP command; return what it returns. Events that arrive meanwhile are dropped."""
        request = {"execute": name, "arguments": arguments} if arguments else {"execute": name}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise MachineError(f"QEMU closed the control socket ({error})") from error
        while True:
            reply = self._read()
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise MachineError(f"QEMU refused {name}: {reply['error'].get('desc', reply['error'])}")

    def find_device(self, type_name: str) -> str:
        """Return the object path of the first built-in device whose type contains `type_name`."""
        for entry in self.command("qom-list", path="/machine/unattached"):
            if type_name in entry["type"]:
                return f"/machine/unattached/{entry['name']}"
        raise MachineError(f"this machine has no {type_name}; it must run with ACPI off (`-M virt,acpi=off`)")
