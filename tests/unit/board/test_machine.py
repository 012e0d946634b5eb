"""Command lines (QEMU, ssh) and deadlines: pure."""

from pathlib import Path

import pytest

from scripts.board_driver.boards import VIRT
from scripts.board_driver.deadline import Deadline
from scripts.board_driver.errors import DeadlineError
from scripts.board_driver.machine import DirectStart, QemuConfig, RunFolder, command_line
from scripts.board_driver.ssh import ssh_command


def config(**more: object) -> QemuConfig:
    base: dict[str, object] = {
        "rom": Path("/i/rom.bin"),
        "disk": Path("/s/disk.qcow2"),
        "run": RunFolder(Path("/r")),
        "ssh_port": 2222,
        "http_port": 8080,
        "board": VIRT,
    }
    return QemuConfig(**(base | more))  # type: ignore[arg-type]


def value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_the_board_is_what_the_design_says():
    command = command_line(config())
    assert " ".join(VIRT.machine) in " ".join(command)
    assert value(command, "-M") == "virt,acpi=off"  # with ACPI there is no GPIO controller
    assert value(command, "-bios") == "/i/rom.bin"
    assert value(command, "-action") == "watchdog=reset"
    assert "i6300esb,addr=0x1f" in command, "the boot script arms it there"
    devices = [word for word in command if word.startswith("virtio-")]
    assert [device.split(",")[0] for device in devices] == ["virtio-blk-pci", "virtio-net-pci", "virtio-rng-pci"]
    assert all("romfile=," in device + "," for device in devices)
    assert "-S" not in command


def test_ports_lead_from_the_loopback_alone():
    network = value(command_line(config()), "-netdev")
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in network
    assert "hostfwd=tcp:127.0.0.1:8080-:80" in network


def test_options_reach_the_command():
    command = command_line(config(mac="02:00:00:00:00:01", paused=True, extra=("-rtc", "base=2020-01-01")))
    assert any(word.endswith("mac=02:00:00:00:00:01") for word in command)
    assert "-S" in command
    assert command[-2:] == ["-rtc", "base=2020-01-01"]


def test_a_kernel_can_be_started_without_the_rom():
    command = command_line(config(direct=DirectStart(Path("/k/Image"), "console=ttyAMA0 ro")))
    assert value(command, "-kernel") == "/k/Image"
    assert value(command, "-append") == "console=ttyAMA0 ro"
    assert "-bios" not in command
    assert "-kernel" not in command_line(config())


def test_recorded_writes_go_through_the_recorder():
    command = command_line(config(write_log=Path("/l,og"), append_write_log=True))
    assert any("driver=blklogwrites" in word and "log.filename=/l,,og,log-append=on" in word for word in command)
    assert any(word.startswith("virtio-blk-pci,drive=recorded") for word in command)
    assert not any("blklogwrites" in word for word in command_line(config()))


def test_a_socket_path_that_does_not_fit_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match="XDG_RUNTIME_DIR"):
        command_line(config(run=RunFolder(Path("/" + "x" * 101))))
    command_line(config(run=RunFolder(Path("/" + "x" * 99))))


def test_ssh_takes_nothing_from_the_persons_own_setup_and_asks_nothing():
    command = ssh_command(2222, Path("/k"), "root", ["--", "true"])
    assert command[:3] == ["ssh", "-F", "/dev/null"]
    assert command[-3:] == ["root@127.0.0.1", "--", "true"]
    assert {"BatchMode=yes", "IdentityAgent=none", "UserKnownHostsFile=/dev/null"} <= set(command)
    assert "BatchMode=yes" not in ssh_command(2222, Path("/k"), "root", [], interactive=True)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_deadline_counts_from_its_making():
    clock = Clock()
    deadline = Deadline(10, "rain", clock)
    assert (deadline.elapsed_s, deadline.remaining_s, deadline.slice_s(3), deadline.slice_s(30)) == (0, 10, 3, 10)
    clock.now_s = 109.5
    deadline.check()
    assert deadline.slice_s(3) == 0.5
    clock.now_s = 110
    assert deadline.expired
    assert deadline.remaining_s == 0
    assert deadline.slice_s(3) > 0
    with pytest.raises(DeadlineError, match="waited 10 s for rain; the sky is blue"):
        deadline.check("the sky is blue")


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_deadline_has_limits(timeout_s: float):
    with pytest.raises(ValueError, match="time limit"):
        Deadline(timeout_s, "x")
