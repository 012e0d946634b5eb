"""Hands files to the board over HTTPS with HTTP/2 and ranges (nginx), and counts every byte that goes to it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from scripts.bench.keys import Keys
from scripts.board_driver import process
from scripts.board_driver.ports import free_port
from scripts.image.run import BuildError

CHUNK_BYTES: Final = 256 * 1024
CONNECT_TIMEOUT_S: Final = 10.0
START_TIMEOUT_S: Final = 15.0


class CountingProxy:
    """Passes TCP connections on to a port of the loopback and counts the bytes of the answers. Use as a context manager."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._to_board_bytes = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that waits in `accept` is woken by this alone.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def to_board_bytes(self) -> int:
        """What went to the board since the beginning or the last `reset`."""
        with self._lock:
            return self._to_board_bytes

    def reset(self) -> None:
        """Count from zero."""
        with self._lock:
            self._to_board_bytes = 0

    def _serve(self) -> None:
        while True:
            try:
                board, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port), CONNECT_TIMEOUT_S)
            except OSError:
                board.close()
                continue
            server.settimeout(None)
            for link in (board, server):
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pass_on, args=(board, server, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, board, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if counted:
                    with self._lock:
                        self._to_board_bytes += len(data)
                target.sendall(data)
        for link in (source, target):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        # Each socket is closed by the thread that reads from it.
        source.close()


def nginx_config(folder: Path, files: Path, keys: Keys, port: int) -> str:
    """Return nginx's configuration: TLS, HTTP/2, ranges, one folder of files, nothing outside `folder` written."""
    user = "user root;\n" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"  {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        "events { worker_connections 256; }\n"
        f"http {{\n{temporary}  access_log off;\n  sendfile on;\n  keepalive_requests 1000000;\n"
        f"  server {{\n    listen 127.0.0.1:{port} ssl http2;\n    root {files};\n"
        f"    ssl_certificate {keys.server};\n    ssl_certificate_key {keys.server};\n  }}\n}}\n"
    )


class FileServer:
    """An nginx over one folder, with a counting proxy before it. Use as a context manager."""

    def __init__(self, folder: Path, files: Path, keys: Keys) -> None:
        self.files = files
        self._folder = folder
        self._port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        files.mkdir(parents=True, exist_ok=True)
        (folder / "nginx.conf").write_text(nginx_config(folder, files, keys, self._port))
        self.proxy = CountingProxy(self._port)
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = ["/usr/sbin/nginx", "-c", str(self._folder / "nginx.conf"), "-e", str(self._folder / "error.log")]
        if not Path(command[0]).is_file():
            raise BuildError("nginx is not installed; `make bench-update` installs what the benchmark needs")
        self._child = process.start_bound(command, self._folder / "nginx.log")
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                break
            except OSError as error:
                if self._child.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    said = (self._folder / "nginx.log").read_text(errors="replace")[-1000:]
                    raise BuildError(f"nginx did not start: {said}") from error
                time.sleep(0.05)
        self.proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__()
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._child = None

    def url(self, name: str) -> str:
        """Return where the board finds a file."""
        return f"https://10.0.2.2:{self.proxy.port}/{name}"
