"""Network and GPIOs on the real board, in two boots: settings take effect, what does not come up is taken back."""

import pytest

from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.conftest import BoardFactory
from tests.board.disks import board_from

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]


def ask(board: WatchedBoard, line: str) -> str:
    return board.send(line, timeout_s=60).expect_ok().strip()


def fail(board: WatchedBoard, line: str) -> str:
    answer = board.send(line, timeout_s=60)
    assert answer.code == 1, answer
    return "\n".join((*answer.log, answer.body))


def test_gpios_and_network(board: BoardFactory, prepared, world: World) -> None:
    one = board_from(board, world, prepared)
    one.wait_for_healthy()
    check_gpios(one)
    check_dhcp(one)
    check_the_probe_has_no_rights(one)
    check_fixed_addresses(one)
    check_no_network(one)
    # What was saved is there after a restart, before anybody says a word; what was not saved is gone.
    for line in ("set network.default_interface ethernet", "set network.static.ip 10.0.2.15", "set gpio.init 3 high"):
        ask(one, line)
    ask(one, "set wlan.ssid barn")
    ask(one, "save")
    ask(one, "set network.static.ip 10.0.2.77")
    one.reboot()
    assert ask(one, "get network.ip") in ("10.0.2.15", "")
    one.wait_for_healthy()
    assert one.succeed("cat /run/zentri/network/plan").split()[1:] == ["static", "10.0.2.15/24", "10.0.2.2", "-"]
    assert one.succeed("pidof udhcpc; true") == ""
    assert (ask(one, "get network.ip"), ask(one, "gpio_get 3")) == ("10.0.2.15", "1")


def check_gpios(one: WatchedBoard) -> None:
    assert ask(one, "gpio_dir 0 out") == "Set OK"
    assert ask(one, "gpio_get 0") == "0"
    with one.button_held():
        assert ask(one, "gpio_get 0") == "1", "the button is still heard"
        one.wait_for_led(on=True)
    one.wait_for_led(on=False)
    assert "factory reset button" in fail(one, "gpio_set 0 1")
    ask(one, "gpio_set 1 1")
    assert one.led()
    ask(one, "gpio_set 1 0")
    assert not one.led()
    assert "gpio_dir 3 out" in fail(one, "gpio_set 3 1")
    ask(one, "gpio_dir 3 high")
    rows = [line.split() for line in ask(one, "gpios_get").splitlines()[1:]]
    assert (len(rows), rows[0][:3], rows[3][:3]) == (8, ["0", "in", "0"], ["3", "out", "1"])
    ask(one, "gpio_dir 3 none")


def check_dhcp(one: WatchedBoard) -> None:
    assert ask(one, "get network.status") == "up"
    assert ask(one, "network_verify") == "Network up"
    assert ask(one, "ping").startswith("Ping reply in ")
    assert ask(one, "nslookup 10.0.2.2") == "10.0.2.2"


def check_the_probe_has_no_rights(one: WatchedBoard) -> None:
    one.succeed("(zentri-shell -c 'ping -n 16 10.0.2.2' > /tmp/ping 2>&1 &)")
    look = "for p in $(grep -ls zentrid.netprobe /proc/[0-9]*/cmdline); do grep -E '^(Uid|CapEff)' ${p%cmdline}status; done"
    status = one.wait_until_succeeds(f"({look}) 2> /dev/null | grep -A1 905")
    assert status.split()[:7] == ["Uid:", *["905"] * 4, "CapEff:", "0" * 16]
    one.wait_until_succeeds("grep -q '16 of 16 answered' /tmp/ping")


def check_fixed_addresses(one: WatchedBoard) -> None:
    for line in ("set network.dhcp 0", "set network.static.ip 192.168.77.5", "set network.static.gateway 192.168.77.1"):
        ask(one, line)
    said = fail(one, "network_restart")
    assert "192.168.77.1 does not answer" in said
    assert "are in use again" in said
    assert ask(one, "get network.ip") == "10.0.2.15"
    assert one.succeed("pidof udhcpc") != ""
    for line in ("set network.static.ip 10.0.2.50", "set network.static.gateway 10.0.2.2"):
        ask(one, line)
    assert ask(one, "network_restart") == "Network up: 10.0.2.50"
    assert ask(one, "ping 10.0.2.2").startswith("Ping reply in ")
    assert "No name server answers" in fail(one, "nslookup no.such.name")


def check_no_network(one: WatchedBoard) -> None:
    assert ask(one, "network_down") == "Network down"
    assert "network_up" in fail(one, "ota -c")
    assert ask(one, "get dms.ota_result") == "5"
    assert "no way to 10.0.2.2" in fail(one, "ping 10.0.2.2")
    ask(one, "set network.default_interface wlan")
    assert "wlan.ssid" in fail(one, "network_up")
    assert "wlan.ssid" in fail(one, "ota -c")
    assert ask(one, "get dms.ota_result") == "4"
    ask(one, "set wlan.ssid barn")
    assert ask(one, "network_up") == "Network up: 10.0.2.50"
