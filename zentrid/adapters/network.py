"""Brings the network interface up and down as the settings say, by way of the script that init keeps running (`zentri-dhcp`).

The supervisor writes a plan and ends the script; init starts it again, and it carries the plan out. So the network outlives
the supervisor, and a device whose supervisor never comes up still has DHCP. What was changed and does not come up is taken
back: a wrong setting that arrives over the network must not end the way by which it can be mended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
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
LOOK_S: Final = 0.2
MAX_FILE_BYTES: Final = 200
_SCRIPT_NAMES: Final = (b"zentri-dhcp", b"udhcpc", b"sleep")
_DISCARD_PORT: Final = 9
_ARP_COMPLETE: Final = 0x2


class Interface(Protocol):
    """What the kernel knows of the network interface. Everything may block briefly."""

    def network(self) -> NetworkFacts | None:
        """Return the addresses in use; None while there are none."""

    def carrier(self) -> bool:
        """Tell whether something is at the other end of the cable."""

    def neighbour(self, address: str) -> bool:
        """Tell whether a machine with this address answers on the link; asks it, so ask again a moment later."""


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
    ) -> None:
        """`folder`: what the script and this have in common; `end` makes the script read it anew."""
        self._values = values
        self._interface = interface
        self._folder = folder
        self._end = end
        self._come_up_s, self._gateway_s = come_up_s, gateway_s
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
        give_up_s = time.monotonic() + self._gateway_s
        while not self._interface.neighbour(gateway):
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
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("network: %s", error, exc_info=None if isinstance(error, NetworkError) else error)

    async def _change(self, *, even_if_up: bool) -> str:
        async with self._lock:
            plan, before = plan_of(self._values), self._plan
            facts = await asyncio.to_thread(self._interface.network)
            if plan == before and facts is not None and not even_if_up:
                return facts.ip
            trouble = await self._try(plan)
            if trouble is not None and before not in (plan, DOWN) and facts is not None:
                again = await self._try(before)
                word = "are in use again" if again is None else "are tried again"
                raise JoinFailedError(
                    f"{trouble} The settings before {word}; mend the ones that are set, or 'load' the saved ones."
                )
        if trouble is not None:
            raise trouble
        facts = await asyncio.to_thread(self._interface.network)
        return "" if facts is None else facts.ip

    async def _down(self) -> None:
        async with self._lock:
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
