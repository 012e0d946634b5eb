"""What the operating system tells: read as it is written there, and nothing where there is nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from zentrid.adapters.hostinfo import LinuxHost, SystemClock


def test_clock() -> None:
    clock = SystemClock()
    assert clock.utc().utcoffset() == timedelta(0)
    assert 0 < clock.uptime_s() <= clock.uptime_s()


def test_memory(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  250000 kB\nMemAvailable:  123456 kB\n")
    assert LinuxHost(root=tmp_path).memory_available_bytes() == 123456 * 1024
    (tmp_path / "proc/meminfo").write_text("MemTotal:  250000 kB\n")
    assert LinuxHost(root=tmp_path).memory_available_bytes() == 0


def test_addresses_of_the_loopback(tmp_path: Path) -> None:
    facts = LinuxHost("lo", tmp_path).network()
    assert facts is not None
    assert facts == ("127.0.0.1", "255.0.0.0", "", "")


def test_gateway_and_name_server(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/net/route").write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "eth9\t00000000\t0103000A\t0003\t0\t0\t0\t00000000\n"
        "lo\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
        "lo\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\n"
    )
    (tmp_path / "etc/resolv.conf").write_text("# made by dhcp\nsearch lan\nnameserver 10.0.2.3\nnameserver 10.0.2.4\n")
    facts = LinuxHost("lo", tmp_path).network()
    assert facts is not None
    assert (facts.gateway, facts.dns) == ("10.0.2.2", "10.0.2.3")


def test_no_such_interface(tmp_path: Path) -> None:
    assert LinuxHost("none0", tmp_path).network() is None
