"""What the operating system tells about time, memory and addresses."""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from zentrid.commands.context import NetworkFacts

_SIOCGIFADDR: Final = 0x8915
_SIOCGIFNETMASK: Final = 0x891B
_RTF_GATEWAY: Final = 0x2


class SystemClock:
    """The kernel's clocks."""

    def utc(self) -> datetime:
        """Return the time now, in UTC."""
        return datetime.now(UTC)

    def uptime_s(self) -> float:
        """Return the seconds since the kernel started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class LinuxHost:
    """Reads /proc and asks the kernel for addresses; `root` is where `/proc` and `/etc` are found."""

    def __init__(self, interface: str = "eth0", root: Path = Path("/")) -> None:
        self._interface = interface
        self._root = root

    def memory_available_bytes(self) -> int:
        """Return MemAvailable; 0 if the kernel does not tell."""
        for line in (self._root / "proc/meminfo").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
        return 0

    def network(self) -> NetworkFacts | None:
        """Return the interface's addresses; None while it has none."""
        ip = self._address(_SIOCGIFADDR)
        if ip is None:
            return None
        return NetworkFacts(ip, self._address(_SIOCGIFNETMASK) or "", self._gateway(), self._name_server())

    def _address(self, request: int) -> str | None:
        name = self._interface.encode("ascii")[:15]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                answer = fcntl.ioctl(probe.fileno(), request, struct.pack("256s", name))
            except OSError:
                return None
        return socket.inet_ntoa(answer[20:24])

    def _gateway(self) -> str:
        for line in self._lines("proc/net/route")[1:]:
            fields = line.split()
            is_default = len(fields) > 3 and fields[0] == self._interface and fields[1] == "00000000"
            if is_default and int(fields[3], 16) & _RTF_GATEWAY:
                return socket.inet_ntoa(struct.pack("<L", int(fields[2], 16)))
        return ""

    def _name_server(self) -> str:
        for line in self._lines("etc/resolv.conf"):
            fields = line.split()
            if len(fields) >= 2 and fields[0] == "nameserver":
                return fields[1]
        return ""

    def _lines(self, path: str) -> list[str]:
        try:
            return (self._root / path).read_text("ascii", "replace").splitlines()
        except OSError:
            return []
