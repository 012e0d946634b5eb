"""The lab's Device Management Server: a process of its own on the loopback, with the demonstration account."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.lab.places import PYTHON, TOP
from scripts.lab.tools import LabError, call

LAUNCHER: Final = TOP / "scripts/board_driver/launcher.py"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 15.0
REQUEST_TIMEOUT_S: Final = 20.0
PREFERRED_DEVICE_PORT: Final = 8443
PREFERRED_WEB_PORT: Final = 8080


def choose_port(preferred: int) -> int:
    """Return `preferred` if it is free on the loopback, else a free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise LabError("no free port on the loopback")


@dataclass
class LabDms:
    """One server over one data folder. Its ports are chosen once and kept in the folder, so a board finds it again."""

    data: Path
    fleet: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def set_up(self) -> None:
        """Make account, product and token, and choose the ports, if that was not done yet."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (self.data / "demo.json").is_file():
            call("dms_server", "demo", "--data", self.data, "--fleet", self.fleet)
        if not self._ports_file.is_file():
            ports = {"device": choose_port(PREFERRED_DEVICE_PORT), "web": choose_port(PREFERRED_WEB_PORT)}
            self._ports_file.write_text(json.dumps(ports))

    @property
    def _ports_file(self) -> Path:
        return self.data / "chosen-ports.json"

    @property
    def _pid_file(self) -> Path:
        return self.data / "server.pid"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data / "server.log"

    @property
    def device_port(self) -> int:
        """The door of devices."""
        return int(json.loads(self._ports_file.read_text())["device"])

    @property
    def web_url(self) -> str:
        """The door of people."""
        return f"http://127.0.0.1:{json.loads(self._ports_file.read_text())['web']}"

    @property
    def account(self) -> dict[str, str]:
        """The demonstration account: user, password, token, product."""
        account: dict[str, str] = json.loads((self.data / "demo.json").read_text())
        return account

    def forget_patches(self) -> None:
        """Remove every patch that the server has made; it makes them again when a device asks."""
        shutil.rmtree(self.data / "patches", ignore_errors=True)

    def start(self, *, detached: bool = False) -> None:
        """Start the server and wait until it is ready; nothing happens if it runs already."""
        if self.ready():
            return
        self._refuse_taken_ports()
        web_port = self.web_url.rsplit(":", 1)[1]
        command = [
            str(PYTHON), "-m", "dms_server", "serve", "--data", str(self.data), "--fleet", str(self.fleet),
            "--device-port", str(self.device_port), "--web-port", web_port, "--bind", "127.0.0.1",
        ]  # fmt: skip
        if not detached:  # it ends with this process, however that ends
            command = [str(PYTHON), str(LAUNCHER), "bound", str(os.getpid()), "--", *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=detached
            )
        self._pid_file.write_text(str(self.process.pid))
        self._wait_until_ready()

    def _refuse_taken_ports(self) -> None:
        """Raise LabError if another program has a port of this server: the board knows its number, so it is not changed."""
        for name, port in json.loads(self._ports_file.read_text()).items():
            if choose_port(port) != port:
                raise LabError(
                    f"port {port} of the loopback, the DMS's {name} port, is taken by another program; end that program, "
                    f"or remove {self._ports_file} and run the same command again: other ports will be chosen"
                )

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        end = time.monotonic() + START_TIMEOUT_S
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
                raise LabError(f"the DMS did not start; its log is {self.log}:\n{tail}")
            time.sleep(0.1)

    def ready(self) -> bool:
        """Tell whether the server of this data folder answers."""
        if not self._ports_file.is_file() or self.pid() is None:
            return False
        try:
            with urllib.request.urlopen(f"{self.web_url}/readyz", timeout=5) as answer:  # noqa: S310 - the loopback
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def pid(self) -> int | None:
        """Return the server's process id, None if it does not run."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.data).encode() in command.split(b"\0") else None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server and wait for it."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, number)
        end = time.monotonic() + STOP_TIMEOUT_S
        if self.process is not None and self.process.pid == pid:
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        while self.pid() is not None:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                end = time.monotonic() + STOP_TIMEOUT_S
            time.sleep(0.05)

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer of the API to GET `path`, asked with the demonstration account's token."""
        return self._call(path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of the API to POST `path` with a JSON body."""
        return self._call(path, json.dumps(body).encode())

    def _call(self, path: str, data: bytes | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.account['token']}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.web_url + path, data=data, headers=headers)  # noqa: S310 - the loopback
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found

    def device(self, uuid: str) -> dict[str, Any]:
        """Return what the DMS shows of a device."""
        return self.get(f"/api/v1/devices/{uuid}")
