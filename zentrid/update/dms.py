"""The device's dealings with its Device Management Server apart from updates: claim, status, commands, reports."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from zentrid.core.bootstate import BootStateLostError
from zentrid.core.names import SAFE_SLOT
from zentrid.update.contact import ServerCommand, parse_commands
from zentrid.update.errors import DmsRefusedError, UpdateError
from zentrid.update.link import WorkerLink, WorkerRun, text_of
from zentrid.update.outbox import Outbox
from zentrid.update.pace import Pace, spread_s
from zentrid.update.reports import command_report, status_facts
from zentrid.update.running import running_release

log = logging.getLogger(__name__)

REPORTS_AT_ONCE: Final = 16
REPORT_BYTES_AT_ONCE: Final = 128 * 1024
"""Less than a request to the worker may have."""
CONTACT_TOTAL_S: Final = 30.0
"""How long the regular question may take: it holds up an update that somebody starts meanwhile."""
LONGEST_SLEEP_S: Final = 60.0
"""So that a change of `dms.interval`, or the end of an update, is noticed."""
BUSY_SLEEP_S: Final = 5.0
"""Between looks at whether an update still runs."""
ANSWER_PAUSES_S: Final = (2.0, 10.0)
"""Between the attempts to deliver the answer to a command. One that got lost on its way back is given again by the server."""
IDS_REMEMBERED: Final = 256


def _never() -> bool:
    return False


def _no_alert() -> str:
    return ""


class DmsClient:
    """Implements `ports.Dms`; delivers the outbox; asks the server regularly whether it wants something.

    `busy`: an update is running; the regular contact waits. `on_trial`: the release is yet to be confirmed; commands wait.
    `alert`: a sentence while the server's signed metadata is not fresh.
    """

    def __init__(
        self,
        link: WorkerLink,
        outbox: Outbox,
        *,
        busy: Callable[[], bool] = _never,
        on_trial: Callable[[], bool] = _never,
        alert: Callable[[], str] = _no_alert,
    ) -> None:
        self._link = link
        self._contact = link.parts.contact
        self._outbox = outbox
        self._busy = busy
        self._on_trial = on_trial
        self._alert = alert
        self._wake = asyncio.Event()
        self._asking: WorkerRun | None = None
        self._answered: deque[str] = deque(maxlen=IDS_REMEMBERED)
        """Ids of commands that were answered in this run."""

    @property
    def reached(self) -> bool:
        """Whether the server answered at least once since the supervisor started."""
        return self._link.reached

    async def claim(self, user_or_product: str, secret: str) -> str:
        """Claim this device by user and password or by product and one-time token; return the server's sentence.

        A product code has a form that no user name has. Raises DmsError.
        """
        names = ("product", "token") if _is_product(user_or_product) else ("user", "password")
        body = dict(zip(names, (user_or_product, secret), strict=True))
        answer = await self._link.ask(self._link.request("claim", body=body))
        return answer.text("message") or ""

    async def activate(self, product: str) -> str:
        """Bind this device to a product; return the server's sentence. Raises DmsError."""
        answer = await self._link.ask(self._link.request("activate", body={"product": product}))
        return answer.text("message") or ""

    async def status(self) -> dict[str, str]:
        """Return what the server knows: claimed (`true`/`false`), owner, product, tag, time; empty where it knows none.

        `alert`, if there is one, is the device's own: why it does not believe that the server shows the newest release.
        """
        values = await self._ask_status(None)
        claimed = "true" if values.get("claimed") is True else "false"
        alert = self._alert()
        return {"claimed": claimed, **_known(values), **({"alert": alert} if alert else {})}

    async def _ask_status(self, most_s: float | None) -> Mapping[str, Any]:
        """Ask for the status, telling the server what runs here; `most_s` bounds how long that may take."""
        parts = self._link.parts
        try:
            faults: int | None = (await asyncio.to_thread(parts.boot_state.read)).faults
        except (BootStateLostError, OSError):
            faults = None
        facts = status_facts(await asyncio.to_thread(running_release, parts), parts.slots.running == SAFE_SLOT, faults)
        request = self._link.request("status", body=facts)
        if most_s is None:
            return (await self._link.ask(request)).values
        limits = {**request.limits, "total_s": min(most_s, request.limits.get("total_s", most_s))}
        try:
            return (await self._link.ask(replace(request, limits=limits), started=self._started)).values
        finally:
            self._asking = None

    def _started(self, run: WorkerRun) -> None:
        self._asking = run
        if self._busy():
            run.stop()

    def make_way(self) -> None:
        """An update begins: end a regular question that is under way; it is asked again later."""
        if self._asking is not None:
            self._asking.stop()

    # --- reports --------------------------------------------------------------------------------------------------
    async def deliver(self) -> int:
        """Send what the outbox holds, oldest first; return how many reports left it. Raises UpdateError.

        A report leaves the outbox only after the server has said that it has it, or that it will not take one like that:
        such a one would be refused for ever, and those behind it would never arrive.
        """
        left = 0

        async def remove(report_id: str) -> None:
            nonlocal left
            await asyncio.to_thread(self._outbox.remove, report_id)
            left += 1

        async def drop(report_id: str, status: int, sentence: str) -> None:
            log.error(
                "dms: the server refused report %s for its content (%d: %s); dropped", report_id, status, sentence
            )
            await remove(report_id)

        waiting = await asyncio.to_thread(self._outbox.reports)
        if waiting:
            request = self._link.request("report", reports=_batch(waiting))
            await self._link.ask(request, delivered=remove, refused=drop)
        return left

    def wake(self) -> None:
        """Say that there is something to deliver."""
        self._wake.set()

    # --- regular contact ------------------------------------------------------------------------------------------
    async def keep_in_touch(self, *, first_boot: bool) -> None:
        """Deliver reports and ask for commands until cancelled, with growing pauses while it does not work.

        `first_boot`: the release is yet to be confirmed, so the server is looked for, without growing pauses, until it was
        reached once.
        """
        now_s = asyncio.get_running_loop().time
        start_s = now_s() + (0.0 if first_boot else spread_s(self._contact.interval_s()))
        contact, delivery = Pace(start_s), Pace(start_s)
        while True:
            woken = self._wake.is_set()
            self._wake.clear()
            looking = first_boot and not self.reached
            contact.at_most(self._contact.interval_s())
            if contact.due(now_s()) and (looking or (self._regular and not self._busy())):
                if await self._try(self._ask_for_commands, looking):
                    contact.succeeded(now_s(), self._contact.interval_s())
                elif not self._busy():
                    contact.failed(now_s(), grow=not looking)
            if woken or delivery.due(now_s()):
                await self._deliver_once(delivery)
            # Looking waits for its own pause even where the server is not asked regularly.
            asking = (contact,) if looking or self._regular else ()
            sleep_s = min(pace.left_s(now_s()) for pace in (*asking, delivery))
            if self._busy():
                sleep_s = max(sleep_s, BUSY_SLEEP_S)
            await self._pause(min(sleep_s, LONGEST_SLEEP_S))

    @property
    def _regular(self) -> bool:
        return self._contact.interval_s() > 0

    async def _deliver_once(self, pace: Pace) -> None:
        now_s = asyncio.get_running_loop().time
        left = waiting = 0

        async def work() -> None:
            nonlocal left, waiting
            left = await self.deliver()
            waiting = await asyncio.to_thread(len, self._outbox)

        if not await self._try(work) or (waiting and not left):
            pace.failed(now_s())
        elif waiting:
            pace.succeeded(now_s(), 0)
        else:
            pace.nothing_left()

    async def _try(self, work: Callable[..., Any], *arguments: object) -> bool:
        """Do it; tell whether it worked. A report or a question is not worth the supervisor, which ends when this task does."""
        try:
            await work(*arguments)
        except (UpdateError, OSError) as error:
            log.info("cannot deal with the DMS yet: %s", error)
        except Exception:
            log.exception("dealing with the DMS failed inside the device")
        else:
            return True
        return False

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _ask_for_commands(self, looking: bool) -> None:
        values = await self._ask_status(None if looking else CONTACT_TOTAL_S)
        self._contact.note({"claimed": "1" if values.get("claimed") is True else "0", **_known(values)})
        for command in parse_commands(values):
            if self._on_trial() or self._busy():
                return  # they wait on the server
            if command.id in self._answered:
                log.warning("dms: the server asks again for %s, which was answered; passed over", command.id)
            elif await self._answer_and_act(command):
                return  # the board restarts; what else there is waits on the server

    async def _answer_and_act(self, command: ServerCommand) -> bool:
        """Decide, answer, and only after the server has the answer act; return whether it acted. Raises UpdateError."""
        accepted, sentence = self._contact.may(command)
        log.warning("dms: command %s %s: %s", command.kind, "accepted" if accepted else "refused", sentence)
        try:
            taken = await self._answer(command, accepted, sentence)
        except DmsRefusedError as error:
            log.warning("dms: the server does not want %s done any more: %s", command.id, error.message)
            taken = False
        self._answered.append(command.id)
        if not (taken and accepted):
            return False
        await self._contact.act(command)
        return True

    async def _answer(self, command: ServerCommand, accepted: bool, sentence: str) -> bool:
        """Bring the answer to the server; return whether it took it. Raises UpdateError."""
        parts = self._link.parts
        running = await asyncio.to_thread(running_release, parts)
        report = command_report(command.id, accepted, sentence, running, parts.utc())
        taken = False

        async def note(report_id: str) -> None:
            nonlocal taken
            taken = taken or report_id == command.id

        for pause_s in (*ANSWER_PAUSES_S, None):
            try:
                await self._link.ask(self._link.request("report", reports=(report,)), delivered=note)
            except DmsRefusedError:
                raise
            except UpdateError:
                if taken:  # what failed came after it
                    break
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            else:
                break
        return taken


def _known(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: text_of(values, name) for name in ("owner", "product", "tag", "time")}


def _batch(waiting: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return the oldest reports that fit into one request; always one."""
    batch: list[dict[str, Any]] = []
    size_bytes = 0
    for report in waiting[:REPORTS_AT_ONCE]:
        size_bytes += len(json.dumps(report))
        if batch and size_bytes > REPORT_BYTES_AT_ONCE:
            break
        batch.append(report)
    return tuple(batch)


def _is_product(text: str) -> bool:
    head, dash, tail = text.partition("-")
    return bool(dash) and "_" in tail and text == text.upper() and head.isalnum()
