"""Brings the network interface up and down as the settings say, by way of the script that init keeps running (`zentri-dhcp`).

The supervisor writes a plan and ends the script; init starts it again, and it carries the plan out. So the network outlives
the supervisor, and a device whose supervisor never comes up still has DHCP. What was changed and does not come up is taken
back: a wrong setting that arrives over the network must not end the way by which it can be mended.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from zentrid.commands.context import NetworkFacts
from zentrid.core.network import (
    DEFAULT,
    DOWN,
    JoinFailedError,
    Mode,
    NetworkError,
    NetworkNotSetError,
    Plan,
    parse_plan,
    plan_at_start,
    plan_of,
    why_no_network,
)
from zentrid.core.variables import Values

log = logging.getLogger(__name__)
_T = TypeVar("_T")

FOLDER: Final = Path("/run/zentri/network")
COME_UP_S: Final = 15.0
"""So long an interface may take: a DHCP server is asked five times, then once more after a pause."""
GATEWAY_S: Final = 4.0
TAKEN_S: Final = 1.0
"""So long another machine may take to say that it has the address already."""
CONFIRM_S: Final = 60.0
"""A change to a fixed address without a gateway cannot be checked: so long a person has time to say that it is right."""
LOOK_S: Final = 0.2
MAX_FILE_BYTES: Final = 200
_SCRIPT_NAMES: Final = (b"zentri-dhcp", b"udhcpc", b"sleep")
_DISCARD_PORT: Final = 9
_ARP_COMPLETE: Final = 0x2
_SIOCDARP: Final = 0x8953
_SOCKADDR_IN: Final = struct.Struct("=HH4s8x")
_ARPREQ: Final = struct.Struct("=16s52x")
"""`struct arpreq`: the address; kind, flags, mask and interface stay empty."""


class Interface(Protocol):
    """What the kernel knows of the network interface. Everything may block briefly."""

    def network(self) -> NetworkFacts | None:
        """Return the addresses in use; None while there are none."""

    def carrier(self) -> bool:
        """Tell whether something is at the other end of the cable."""

    def neighbour(self, address: str) -> bool:
        """Tell whether a machine with this address answers on the link; asks it, so ask again a moment later."""

    def forget(self, address: str) -> None:
        """Forget whether that machine was there: what counts is what it says from now on."""


class Neighbours:
    """The kernel's table of machines on the link; `root` is where `/proc` is found."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def answers(self, address: str) -> bool:
        """Make the kernel look for the address, and tell whether it has found it."""
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as poke:
            poke.setblocking(False)
            poke.sendto(b"", (address, _DISCARD_PORT))
        try:
            lines = (self._root / "proc/net/arp").read_text("ascii", "replace").splitlines()[1:]
        except OSError:
            return False
        rows = (line.split() for line in lines)
        return any(row[:1] == [address] and len(row) > 2 and int(row[2], 16) & _ARP_COMPLETE for row in rows)

    def forget(self, address: str) -> None:
        """Remove an address from the table, where one that answered once stays for a long time. Needs root."""
        ip = _SOCKADDR_IN.pack(socket.AF_INET, 0, socket.inet_aton(address))
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCDARP, _ARPREQ.pack(ip))


class LinkInterface:
    """An interface of this machine."""

    def __init__(self, name: str, network: Callable[[], NetworkFacts | None], root: Path = Path("/")) -> None:
        self._carrier = root / "sys/class/net" / name / "carrier"
        self._neighbours = Neighbours(root)
        self.network = network

    def carrier(self) -> bool:
        """Tell whether something is at the other end of the cable."""
        try:
            return self._carrier.read_text().strip() == "1"
        except OSError:  # also while the interface is down
            return False

    def neighbour(self, address: str) -> bool:
        """Tell whether a machine with this address answers on the link."""
        return self._neighbours.answers(address)

    def forget(self, address: str) -> None:
        """Forget whether that machine was there."""
        self._neighbours.forget(address)


def end_script(folder: Path, proc: Path = Path("/proc")) -> None:
    """End the process that holds the interface, so that init starts it again. One that has ended by itself does not matter."""
    try:
        pid = int((folder / "pid").read_text()[:MAX_FILE_BYTES])
        command = (proc / str(pid) / "cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if pid > 1 and any(name in command for name in _SCRIPT_NAMES):  # the number may belong to another process by now
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@dataclass(eq=False)
class _Unconfirmed:
    """A change that is taken back unless somebody says that it is right."""

    before: Plan
    timer: asyncio.TimerHandle


class NetworkControl:
    """The one network interface, as the settings want it; one change at a time."""

    def __init__(
        self,
        values: Values,
        interface: Interface,
        folder: Path = FOLDER,
        *,
        end: Callable[[Path], None] = end_script,
        come_up_s: float = COME_UP_S,
        gateway_s: float = GATEWAY_S,
        confirm_s: float = CONFIRM_S,
    ) -> None:
        """`folder`: what the script and this have in common; `end` makes the script read it anew."""
        self._values = values
        self._interface = interface
        self._folder = folder
        self._end = end
        self._come_up_s, self._gateway_s, self._confirm_s = come_up_s, gateway_s, confirm_s
        self._unconfirmed: _Unconfirmed | None = None
        self._generation = 0
        self._plan = DEFAULT
        self._lock = asyncio.Lock()
        self._work: set[asyncio.Task[Any]] = set()

    # --- what others ask ------------------------------------------------------------------------------------------
    def trouble(self) -> NetworkError | None:
        """Return why nothing can be reached; None: the network is there. May block briefly."""
        try:
            plan_of(self._values)
            problem = ""
        except NetworkNotSetError as error:
            problem = str(error)
        facts = self._interface.network()
        return why_no_network(
            self._plan, problem, carrier=self._interface.carrier(), ip="" if facts is None else facts.ip
        )

    def how(self) -> str:
        """Return where the address in use comes from: `dhcp`, `static`, or `down` without one."""
        return self._plan.mode.value

    def gateway_answers(self, gateway: str) -> bool:
        """Tell whether the gateway is there, within GATEWAY_S. Blocks so long."""
        return self._answers(gateway, self._gateway_s)

    def _answers(self, address: str, wait_s: float) -> bool:
        give_up_s = time.monotonic() + wait_s
        self._interface.forget(address)
        while not self._interface.neighbour(address):
            if time.monotonic() > give_up_s:
                return False
            time.sleep(LOOK_S)
        return True

    # --- changes --------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Let the settings take effect at the supervisor's start, and touch nothing that is so already. Blocking; never raises.

        The script may wait for this: it looks for the plan after it has set its mark, and this for the mark after the plan.
        """
        plan, problem = plan_at_start(self._values)
        if problem:
            log.error("network: %s Meanwhile: %s.", problem, plan.mode.value)
        held = self._held()
        self._generation, before = held or (0, DEFAULT)
        try:
            if held is None or before != plan:
                self._write(plan)
            if before != plan or (held is None and (self._folder / "waited").exists()):
                self._end(self._folder)
        except OSError as error:
            log.error("network: the settings cannot take effect (%s)", error)
        self._plan = plan

    @property
    def unconfirmed(self) -> bool:
        """Tell whether a change is taken back soon, unless `confirm` is called."""
        return self._unconfirmed is not None

    def confirm(self) -> None:
        """Keep a change that could not be checked: a person has come in after it."""
        self._settle()

    def _settle(self) -> Plan | None:
        """Take back nothing any more; return what would have come back."""
        waiting, self._unconfirmed = self._unconfirmed, None
        if waiting is None:
            return None
        waiting.timer.cancel()
        return waiting.before

    async def up(self) -> str:
        """Bring the network up as the settings say; return the address. What is up so already is left alone.

        Raises NetworkError: then what worked before is in use again, or if nothing did, it is tried further.
        """
        return await self._to_its_end(self._change(even_if_up=False))

    async def restart(self) -> str:
        """As `up`, and what is up already is brought up anew."""
        return await self._to_its_end(self._change(even_if_up=True))

    async def down(self) -> None:
        """Take the network down until it is brought up again, at the latest by the next start. Raises NetworkError."""
        await self._to_its_end(self._down())

    async def _to_its_end(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Carry a change to its end even if nobody waits for it any more: who asked may have come through this network."""
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("network: %s", error, exc_info=None if isinstance(error, NetworkError) else error)

    async def _change(self, *, even_if_up: bool) -> str:
        async with self._lock:
            plan, before = plan_of(self._values), self._plan
            facts = await asyncio.to_thread(self._interface.network)
            if plan == before and facts is not None and not even_if_up:
                self.confirm()
                return facts.ip
            if facts is not None and await asyncio.to_thread(self._is_taken, plan, facts):
                raise JoinFailedError(f"Another machine has the address {plan.ip}: change network.static.ip.")
            # What is not confirmed yet is nothing to go back to.
            before = self._settle() or before
            trouble = await self._try(plan)
            goes_back = before not in (plan, DOWN) and facts is not None
            if trouble is None and goes_back and plan.mode is Mode.STATIC and not plan.gateway:
                self._wait_for_confirmation(before)
            if trouble is not None and goes_back:
                again = await self._try(before)
                word = "are in use again" if again is None else "are tried again"
                raise JoinFailedError(
                    f"{trouble} The settings before {word}; mend the ones that are set, or 'load' the saved ones."
                )
        if trouble is not None:
            raise trouble
        facts = await asyncio.to_thread(self._interface.network)
        return "" if facts is None else facts.ip

    def _is_taken(self, plan: Plan, facts: NetworkFacts) -> bool:
        """Ask in the network of now whether another machine has the address; of other networks nobody can be asked."""
        if plan.mode is not Mode.STATIC or plan.ip == facts.ip:
            return False
        return self._answers(plan.ip, min(TAKEN_S, self._gateway_s))

    def _wait_for_confirmation(self, before: Plan) -> None:
        timer = asyncio.get_running_loop().call_later(self._confirm_s, lambda: self._spawn(self._take_back()))
        self._unconfirmed = _Unconfirmed(before, timer)

    async def _take_back(self) -> None:
        waiting = self._unconfirmed
        async with self._lock:
            if waiting is None or self._unconfirmed is not waiting:  # confirmed, or changed again, while this waited
                return
            self._unconfirmed = None
            log.warning(
                "network: nobody has confirmed the address %s: the settings before are in use again", self._plan.ip
            )
            if (trouble := await self._try(waiting.before)) is not None:
                raise trouble

    async def _down(self) -> None:
        async with self._lock:
            self._settle()
            if (trouble := await self._try(DOWN)) is not None:
                raise trouble

    async def _try(self, plan: Plan) -> NetworkError | None:
        """Carry out a plan; return why it does not hold, or nothing."""
        try:
            await asyncio.to_thread(self._write, plan)
            self._plan = plan
            await asyncio.to_thread(self._end, self._folder)
        except OSError as error:
            return NetworkError(f"The network cannot be changed ({error.strerror or error}); try again.")
        give_up_s = time.monotonic() + self._come_up_s
        while not await asyncio.to_thread(self._is_carried_out):
            if time.monotonic() > give_up_s:
                return await asyncio.to_thread(self._why)
            await asyncio.sleep(LOOK_S)
        if plan.mode is Mode.DOWN:
            return None
        if plan.gateway and not await asyncio.to_thread(self.gateway_answers, plan.gateway):
            return JoinFailedError(f"The gateway {plan.gateway} does not answer at the address {plan.ip}.")
        return None

    def _is_carried_out(self) -> bool:
        if self._read("up").strip() != str(self._generation):
            return False
        facts = self._interface.network()
        if self._plan.mode is Mode.DOWN:
            return facts is None
        return facts is not None and self._interface.carrier() and facts.ip == (self._plan.ip or facts.ip)

    def _why(self) -> NetworkError:
        facts = self._interface.network()
        ip = "" if facts is None or self._read("up").strip() != str(self._generation) else facts.ip
        found = why_no_network(self._plan, "", carrier=self._interface.carrier(), ip=ip)
        return found or NetworkError("The network interface does not do what it should; see 'network_verify'.")

    # --- what the script and this have in common --------------------------------------------------------------------
    def _held(self) -> tuple[int, Plan] | None:
        return parse_plan(self._read("plan"))

    def _read(self, name: str) -> str:
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(MAX_FILE_BYTES).decode("ascii", "replace")
        except OSError:
            return ""

    def _write(self, plan: Plan) -> None:
        """Put a plan where the script finds it, whole or not at all. Raises OSError."""
        self._generation += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / "plan.new"
        new.write_text(plan.to_line(self._generation))
        new.replace(self._folder / "plan")
