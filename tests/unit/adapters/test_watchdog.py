"""The watchdog device: whatever the driver can do, it is fed."""

import errno
import fcntl
import struct

import pytest

from zentrid.adapters.watchdog import Watchdog


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_driver_that_refuses_the_timeout_is_fed_all_the_same(tmp_path, monkeypatch, error):
    """Early user space has armed it: a supervisor that does not feed it would be reset for ever, in every slot."""
    calls = []

    def ioctl(_fd, request, argument):
        calls.append(request)
        if request == 0xC0045706:
            raise OSError(error, "refused")
        return struct.pack("i", 60)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    device = tmp_path / "watchdog"
    device.touch()
    watchdog = Watchdog(device, 30)
    watchdog.feed()
    watchdog.close()
    assert device.read_bytes() == b"\n"
    assert watchdog.timeout_s == 60
    assert len(calls) == 2


def test_a_driver_that_tells_nothing_is_fed_all_the_same(tmp_path):
    device = tmp_path / "watchdog"
    device.touch()  # an ordinary file knows neither of the two requests
    watchdog = Watchdog(device, 30)
    watchdog.feed()
    watchdog.close()
    assert device.read_bytes() == b"\n"


def test_no_watchdog_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Watchdog(tmp_path / "none", 30)
