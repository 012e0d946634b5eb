"""For tests, of this server and of what talks to it: a real server in its own process, and devices' TLS set-up."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 20.0


class RunningDms:
    """`python -m dms_server serve` on ports of its own; the same ports again after a restart.

    `token`, `user`, `password` and `product` come from `demo.json`: `start` makes the demonstration account first,
    unless told not to. The log goes to `DATA/server.log`.
    """

    def __init__(
        self, data_dir: Path, fleet_dir: Path, *, demo: bool = True, environment: dict[str, str] | None = None
    ) -> None:
        self.data = data_dir
        self.fleet = fleet_dir
        self.device_port = 0
        self.web_port = 0
        self._demo = demo
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunningDms:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def web_url(self) -> str:
        """The address of pages and API, without a slash at the end."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def device_url(self) -> str:
        """The address of the device door, without a slash at the end."""
        return f"https://127.0.0.1:{self.device_port}"

    @property
    def demo(self) -> dict[str, str]:
        """`user`, `password`, `token` and `product` of the demonstration account."""
        known: dict[str, str] = json.loads((self.data / "demo.json").read_text("utf-8"))
        return known

    @property
    def token(self) -> str:
        """An API token with all scopes."""
        return self.demo["token"]

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return (self.data / "server.log").read_text("utf-8", "replace")

    def start(self) -> RunningDms:
        """Start the server and wait until both doors listen. Raises RuntimeError with the log if it does not come up."""
        if self._process is not None:
            raise RuntimeError("the server runs already")
        self.data.mkdir(parents=True, exist_ok=True)
        folders = ["--data", str(self.data), "--fleet", str(self.fleet)]
        if self._demo and not (self.data / "demo.json").exists():
            command = [sys.executable, "-m", "dms_server", "demo", *folders]
            subprocess.run(command, cwd=ROOT, env=self._environment, check=True, capture_output=True, timeout=60)
        ports_file = self.data / "ports.json"
        ports_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "dms_server", "serve", *folders]
        command += ["--device-port", str(self.device_port), "--web-port", str(self.web_port)]
        with (self.data / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_DEADLINE_S
        while not ports_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the server did not start:\n{self.log[-4000:]}")
            time.sleep(0.02)
        ports = json.loads(ports_file.read_text("utf-8"))
        self.device_port, self.web_port = ports["device"], ports["web"]
        return self

    def stop(self) -> int:
        """Ask the server to stop and wait; return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> RunningDms:
        """Stop and start again, on the same ports."""
        self.stop()
        return self.start()

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError("the server did not stop in time and was killed") from None


def device_tls(identity: Path, *, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return the TLS set-up of the device whose identity folder is given: TLS 1.3, its certificate, strict checks."""
    context = ssl.create_default_context(cafile=str(identity / "dms_ca.crt"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.load_cert_chain(certificate or identity / "device.crt", key or identity / "device.key")
    return context
