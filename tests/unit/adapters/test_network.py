"""The network interface: settings take effect by way of the script, and what does not come up is taken back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from zentrid.adapters import network
from zentrid.adapters.network import LinkInterface, Neighbours, NetworkControl, end_script
from zentrid.commands.context import NetworkFacts
from zentrid.core.network import DEFAULT, DOWN, JoinFailedError, Mode, NetworkNotSetError, Plan, parse_plan
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import Values

OVERLAY = Path(__file__).resolve().parents[3] / "rootfs_overlay"
FIXED = Plan(Mode.STATIC, "10.0.2.50", 24, "10.0.2.2", "")
LEASE = NetworkFacts("10.0.2.15", "255.255.255.0", "10.0.2.2", "10.0.2.3")


@pytest.fixture(autouse=True)
def blocking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(network, "LOOK_S", 0.01)
    with blockbuster_ctx("zentrid"):
        yield


class World:
    """An interface, the script that holds it, and what is at the other end of the cable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: NetworkFacts | None = LEASE
        self.cable = True
        self.dhcp_server = True
        self.machines = {"10.0.2.2"}
        self.remembered: set[str] = set()
        """Machines that have answered once."""
        self.plans: list[Plan] = []
        self.values = Values(VARIABLES)
        self.control = self.start()

    def start(self) -> NetworkControl:
        """Start the supervisor's part anew."""
        return NetworkControl(
            self.values, self, self.folder, end=self.end, come_up_s=0.2, gateway_s=0.05, confirm_s=0.1
        )

    def network(self) -> NetworkFacts | None:
        return self.facts

    def carrier(self) -> bool:
        return self.cable and self.control.how() != "down"

    def neighbour(self, address: str) -> bool:
        return self.cable and address in self.machines | self.remembered

    def forget(self, address: str) -> None:
        self.remembered.discard(address)

    def end(self, folder: Path) -> None:
        """Do what the script does when it is started again."""
        held = parse_plan((folder / "plan").read_text())
        assert held is not None
        generation, plan = held
        self.plans.append(plan)
        self.facts = {
            Mode.DHCP: LEASE if self.cable and self.dhcp_server else None,
            Mode.STATIC: NetworkFacts(plan.ip, "255.255.255.0", plan.gateway, plan.dns),
            Mode.DOWN: None,
        }[plan.mode]
        (folder / "up").unlink(missing_ok=True)
        if self.facts is not None or plan.mode is Mode.DOWN:
            (folder / "up").write_text(f"{generation}\n")

    def want_fixed(self, ip: str = "10.0.2.50", gateway: str = "10.0.2.2") -> None:
        self.values.set("network.dhcp", False)
        self.values.set("network.static.ip", ip)
        self.values.set("network.static.gateway", gateway)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "network")


async def test_the_start_of_a_device_with_default_settings_disturbs_nothing(world: World) -> None:
    await asyncio.to_thread(world.control.begin)
    assert world.plans == [], "the script asks by DHCP since long"
    assert parse_plan((world.folder / "plan").read_text()) == (1, DEFAULT)
    assert world.control.trouble() is None
    assert world.control.how() == "dhcp"


async def test_the_start_with_a_script_that_waits_for_it(world: World) -> None:
    world.folder.mkdir()
    (world.folder / "waited").touch()
    await asyncio.to_thread(world.control.begin)
    assert world.plans == [DEFAULT], "it waits although DHCP was saved"
    world.control = world.start()
    await asyncio.to_thread(world.control.begin)
    assert world.plans == [DEFAULT], "a supervisor that is started again cuts nobody off"


async def test_the_start_with_a_fixed_address(world: World) -> None:
    world.want_fixed()
    await asyncio.to_thread(world.control.begin)
    assert world.plans == [FIXED]
    world.want_fixed(ip="10.0.2.51")
    world.control = world.start()
    await asyncio.to_thread(world.control.begin)
    assert [plan.ip for plan in world.plans] == ["10.0.2.50", "10.0.2.51"]


async def test_the_start_with_settings_that_cannot_be(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.want_fixed(gateway="192.168.1.1")
    await asyncio.to_thread(world.control.begin)
    assert world.plans == []
    assert world.control.how() == "dhcp"
    assert "not in the network" in caplog.text
    assert world.control.trouble() is None, "it is reachable all the same"


async def test_the_start_on_a_broken_file_system(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.folder.write_text("not a folder")
    await asyncio.to_thread(world.control.begin)
    assert "cannot take effect" in caplog.text


async def test_a_fixed_address_and_back(world: World) -> None:
    world.want_fixed()
    assert world.control.how() == "dhcp", "nothing changes by setting"
    assert await world.control.restart() == "10.0.2.50"
    assert world.control.how() == "static"
    world.values.set("network.dhcp", True)
    assert await world.control.restart() == "10.0.2.15"
    assert world.plans == [FIXED, DEFAULT]


@pytest.mark.parametrize("way", ["restart", "up"])
async def test_a_gateway_that_does_not_answer_takes_the_change_back(world: World, way: str) -> None:
    world.want_fixed(ip="192.168.9.9", gateway="192.168.9.1")
    with pytest.raises(JoinFailedError, match=r"192\.168\.9\.1 does not answer.*before are in use again"):
        await getattr(world.control, way)()
    assert world.plans[-1] == DEFAULT
    assert world.facts == LEASE
    assert world.control.trouble() is None


async def until_back(world: World) -> None:
    async with asyncio.timeout(5):
        while world.plans[-1] != DEFAULT or world.control.trouble() is not None:
            await asyncio.sleep(0.01)


async def test_without_a_gateway_a_change_that_nobody_confirms_is_taken_back(world: World) -> None:
    world.want_fixed(ip="192.168.9.9", gateway="")
    assert await world.control.restart() == "192.168.9.9"
    assert world.control.unconfirmed
    await until_back(world)
    assert (world.facts, world.control.unconfirmed) == (LEASE, False)


async def test_a_second_change_goes_back_to_what_was_known_to_work(world: World) -> None:
    for ip in ("192.168.9.9", "192.168.9.9", "192.168.9.8"):
        world.want_fixed(ip=ip, gateway="")
        await world.control.restart()
    await until_back(world)
    assert [plan.ip for plan in world.plans] == ["192.168.9.9", "192.168.9.9", "192.168.9.8", ""]


@pytest.mark.parametrize("way", ["confirm", "up", "down", "gateway"])
async def test_what_is_confirmed_stays(world: World, way: str) -> None:
    world.want_fixed(ip="10.0.2.9", gateway="")
    await world.control.restart()
    if way == "confirm":
        world.control.confirm()
    elif way == "gateway":
        world.want_fixed(ip="10.0.2.9")
        await world.control.restart()
    else:
        await getattr(world.control, way)()
    assert not world.control.unconfirmed
    plans = list(world.plans)
    await asyncio.sleep(0.2)
    assert world.plans == plans


async def test_a_dhcp_server_that_does_not_answer_takes_the_change_back(world: World) -> None:
    world.want_fixed()
    await world.control.restart()
    world.dhcp_server = False
    world.values.set("network.dhcp", True)
    with pytest.raises(JoinFailedError, match=r"No DHCP server answers.*before are in use again"):
        await world.control.restart()
    assert world.facts is not None
    assert world.facts.ip == "10.0.2.50"


async def test_the_same_settings_are_tried_further(world: World) -> None:
    world.cable = False
    with pytest.raises(JoinFailedError, match="no link") as caught:
        await world.control.restart()
    assert "before" not in str(caught.value)
    assert world.plans == [DEFAULT]


async def test_settings_that_do_not_fit_touch_nothing(world: World) -> None:
    world.values.set("network.default_interface", "wlan")
    for change in (world.control.restart, world.control.up):
        with pytest.raises(NetworkNotSetError, match=r"wlan\.ssid"):
            await change()
    assert (world.plans, world.facts) == ([], LEASE)


async def test_down_and_up(world: World) -> None:
    await world.control.down()
    assert world.plans == [DOWN]
    assert "network_up" in str(world.control.trouble())
    world.cable = False
    with pytest.raises(JoinFailedError, match="no link"):
        await world.control.up()
    world.cable = True
    assert await world.control.restart() == "10.0.2.15"
    assert await world.control.up() == "10.0.2.15"
    assert world.plans == [DOWN, DEFAULT, DEFAULT], "what is up stays up"


async def test_a_device_without_a_network_to_join_says_so(world: World) -> None:
    world.values.set("network.default_interface", "wlan")
    world.facts = None
    await asyncio.to_thread(world.control.begin)
    assert world.control.how() == "dhcp", "it can be reached all the same"
    assert isinstance(world.control.trouble(), NetworkNotSetError)
    world.values.set("wlan.ssid", "barn")
    assert isinstance(world.control.trouble(), JoinFailedError), "set, and not joined yet"
    assert await world.control.up() == "10.0.2.15"


async def test_who_asked_may_be_gone_and_the_change_still_comes_to_its_end(world: World) -> None:
    world.want_fixed(gateway="10.0.2.77")
    task = asyncio.create_task(world.control.restart())
    while not world.plans:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while world.plans[-1] != DEFAULT:
            await asyncio.sleep(0.01)


async def test_one_change_at_a_time(world: World) -> None:
    world.want_fixed()
    await asyncio.gather(world.control.restart(), world.control.down(), world.control.up())
    assert world.plans == [FIXED, DOWN, FIXED]
    assert world.control.trouble() is None


async def test_an_old_answer_of_the_script_does_not_count(world: World) -> None:
    world.folder.mkdir()
    (world.folder / "up").write_text("0\n")
    world.control = NetworkControl(world.values, world, world.folder, end=lambda _: None, come_up_s=0.1)
    with pytest.raises(JoinFailedError, match="DHCP"):
        await world.control.restart()


def test_the_script_is_ended_and_nothing_else(tmp_path: Path) -> None:
    end_script(tmp_path)  # no number yet
    for pid, command, is_ended in ((b"sleep", b"sleep\x0060", True), (b"other", b"/usr/bin/python3", False)):
        with subprocess.Popen(["/bin/sleep", "60"]) as process:
            (tmp_path / "pid").write_text(f"{process.pid}\n")
            folder = tmp_path / pid.decode() / str(process.pid)
            folder.mkdir(parents=True)
            (folder / "cmdline").write_bytes(command)
            end_script(tmp_path, folder.parent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5 if is_ended else 0.2)
            assert process.poll() == (-signal.SIGTERM if is_ended else None)
            process.kill()
    for text in ("1", "0", "-1", "x", "", "99999999"):
        (tmp_path / "pid").write_text(text)
        end_script(tmp_path)


async def test_an_address_that_another_machine_has_is_not_taken(world: World) -> None:
    world.machines.add("10.0.2.50")
    world.want_fixed()
    with pytest.raises(JoinFailedError, match=r"Another machine has the address 10\.0\.2\.50"):
        await world.control.restart()
    assert (world.plans, world.facts) == ([], LEASE)
    world.machines.discard("10.0.2.50")
    assert await world.control.restart() == "10.0.2.50"
    world.machines.add("10.0.2.50")
    assert await world.control.restart() == "10.0.2.50", "its own is no other's"


def test_a_gateway_that_was_there_once_is_asked_again(world: World) -> None:
    world.remembered = {"10.0.2.2"}
    world.machines = set()
    assert not world.control.gateway_answers("10.0.2.2")
    world.machines = {"10.0.2.2"}
    assert world.control.gateway_answers("10.0.2.2")


def test_what_the_kernel_is_told_to_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bytes] = []

    def ioctl(_socket: object, request: int, argument: bytes) -> None:
        assert request == 0x8953  # SIOCDARP
        told.append(argument)
        raise PermissionError

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    LinkInterface("eth0", lambda: None, tmp_path).forget("10.0.2.2")
    [request] = told
    assert (len(request), request[4:8]) == (68, bytes([10, 0, 2, 2]))


def test_what_the_kernel_knows(tmp_path: Path) -> None:
    arp = "IP address       HW type     Flags       HW address            Mask     Device\n"
    arp += "10.0.2.2         0x1         0x2         52:55:0a:00:02:02     *        eth0\n"
    arp += "10.0.2.9         0x1         0x0         00:00:00:00:00:00     *        eth0\n"
    assert not Neighbours(tmp_path).answers("127.0.0.1")
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/arp").write_text(arp)
    interface = LinkInterface("eth0", lambda: None, tmp_path)
    assert [interface.neighbour(a) for a in ("10.0.2.2", "10.0.2.9", "10.0.2.1")] == [True, False, False]
    assert not interface.carrier()
    carrier = tmp_path / "sys/class/net/eth0/carrier"
    carrier.parent.mkdir(parents=True)
    for text, there in (("1\n", True), ("0\n", False)):
        carrier.write_text(text)
        assert interface.carrier() is there


class Script:
    """The script of the image, run by the shell of this machine with programs that only write down what they are told."""

    def __init__(self, tmp: Path) -> None:
        self.run_folder, self.did, self.settings = tmp / "network", tmp / "did", tmp / "settings.json"
        self.text = (OVERLAY / "usr/sbin/zentri-dhcp").read_text()
        for old, new in (
            ("/run/zentri/network", str(self.run_folder)), ("/run/resolv.conf", str(tmp / "resolv.conf")),
            ("/data/zentri/settings.json", str(self.settings)), ("/sbin/udhcpc", str(tmp / "udhcpc")),
        ):  # fmt: skip
            assert old in self.text
            self.text = self.text.replace(old, new)
        for name in ("ip", "udhcpc", "sleep"):
            program = tmp / name
            program.write_text(
                f'#!/bin/sh\necho "{name} $* ${{ZENTRI_GENERATION:-}}" >> {self.did}\necho noise\necho noise >&2\n'
            )
            program.chmod(0o755)
        self.stderr_may_be = False
        self.environment = {"PATH": f"{tmp}:/usr/bin:/bin"}
        self.resolver = tmp / "resolv.conf"

    def __call__(self) -> list[str]:
        """Run it; return what it did."""
        self.did.unlink(missing_ok=True)
        done = subprocess.run(
            ["/bin/sh", "-u", "-c", self.text],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        assert done.stdout == "", "the console is not its place"
        assert self.stderr_may_be or done.stderr == ""
        return [line.strip() for line in self.did.read_text().splitlines()] if self.did.exists() else []

    @property
    def up(self) -> str:
        path = self.run_folder / "up"
        return path.read_text().strip() if path.exists() else ""


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_the_script_without_a_word_of_the_supervisor_is_dhcp(script: Script) -> None:
    [line] = script()
    assert line.startswith("udhcpc -f -i eth0")
    assert line.endswith(" 0")
    script.settings.write_text(' "dms.auto": "check",\n "system.name": "network"\n')
    assert script() == [line], "other settings do not hold it up"
    assert int((script.run_folder / "pid").read_text()) > 1
    assert (script.run_folder / "log").read_text() == "", (
        "what asks for ever must not fill the memory with what it says"
    )


def test_the_script_on_a_full_file_system_still_asks(script: Script) -> None:
    script.run_folder.write_text("in the way: nothing can be written there")
    script.stderr_may_be = True
    assert script()[0].startswith("udhcpc")


def test_the_script_waits_once_for_what_was_saved(script: Script) -> None:
    script.settings.write_text(' "network.dhcp": false,\n')
    assert script() == ["sleep 60"]
    assert script()[0].startswith("udhcpc"), "a supervisor that does not come must not keep the network away"


def test_the_script_does_not_wait_for_what_is_there_by_now(script: Script) -> None:
    script.settings.write_text(' "wlan.ssid": "barn",\n')
    # As if the supervisor wrote the plan between the two looks.
    script.text = script.text.replace('touch "', f'echo "3 down" > {script.run_folder}/plan; touch "')
    assert script() == []
    assert "ip link set eth0 down" in script()


def test_the_script_and_a_fixed_address(script: Script) -> None:
    script.run_folder.mkdir()
    (script.run_folder / "plan").write_text(Plan(Mode.STATIC, "10.0.2.50", 24, "10.0.2.2", "10.0.2.3").to_line(5))
    assert script() == [
        "ip addr flush dev eth0", "ip link set eth0 down", "ip link set eth0 up", "ip addr add 10.0.2.50/24 dev eth0",
        "ip route replace default via 10.0.2.2 dev eth0", "sleep 2147483647",
    ]  # fmt: skip
    assert (script.up, script.resolver.read_text()) == ("5", "nameserver 10.0.2.3\n")
    (script.run_folder / "plan").write_text(Plan(Mode.STATIC, "10.0.2.50", 24).to_line(6))
    assert not any("route" in line for line in script())
    assert (script.up, script.resolver.read_text()) == ("6", "")


def test_the_script_and_no_network(script: Script) -> None:
    script.run_folder.mkdir()
    (script.run_folder / "plan").write_text(DOWN.to_line(8))
    assert script()[:2] == ["ip addr flush dev eth0", "ip link set eth0 down"]
    assert script.up == "8"


@pytest.mark.parametrize("text", ["", "nonsense", "7 dhcp", "7 dhcp\n", "\x00\xff"])
def test_the_script_and_a_plan_that_says_nothing_else(script: Script, text: str) -> None:
    script.run_folder.mkdir()
    (script.run_folder / "plan").write_text(text)
    assert script()[0].startswith("udhcpc"), "a device that can be reached can be mended"


def test_the_scripts_of_dhcp_tell_when_there_is_an_address(script: Script, tmp_path: Path) -> None:
    text = (OVERLAY / "usr/share/udhcpc/default.script").read_text()
    text = text.replace("/run/zentri/network", str(script.run_folder)).replace("/run/resolv.conf", str(script.resolver))
    script.run_folder.mkdir()
    lease = {"interface": "eth0", "ip": "10.0.2.15", "mask": "24", "router": "10.0.2.2", "dns": "10.0.2.3"}
    environment = os.environ | script.environment | lease | {"ZENTRI_GENERATION": "4"}
    for event, up in (("deconfig", ""), ("bound", "4"), ("leasefail", "4"), ("deconfig", "")):
        subprocess.run(["/bin/sh", "-c", text, "script", event], env=environment, timeout=10, check=True)
        assert script.up == up
    assert script.resolver.read_text() == "nameserver 10.0.2.3\n"
