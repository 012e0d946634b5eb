"""The device's dealings with its Device Management Server apart from updates: claim, status, and the reports that must arrive."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from zentrid.update.errors import UpdateError
from zentrid.update.link import WorkerLink, text_of
from zentrid.update.outbox import Outbox

log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 10.0
LONGEST_PAUSE_S: Final = 900.0
REPORTS_AT_ONCE: Final = 16


class DmsClient:
    """Implements `ports.Dms`; delivers the outbox."""

    def __init__(self, link: WorkerLink, outbox: Outbox) -> None:
        self._link = link
        self._outbox = outbox
        self._wake = asyncio.Event()

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
        """Return what the server knows: claimed (`true`/`false`), owner, product, tag, time; empty where it knows none."""
        values = (await self._link.ask(self._link.request("status"))).values
        known = {name: text_of(values, name) for name in ("owner", "product", "tag", "time")}
        return {"claimed": "true" if values.get("claimed") is True else "false", **known}

    async def deliver(self) -> int:
        """Send what the outbox holds, oldest first; return how many reports arrived. Raises UpdateError.

        A report leaves the outbox only after the server has said that it has it.
        """
        arrived = 0

        async def remove(report_id: str) -> None:
            nonlocal arrived
            await asyncio.to_thread(self._outbox.remove, report_id)
            arrived += 1

        waiting = await asyncio.to_thread(self._outbox.reports)
        if waiting:
            request = self._link.request("report", reports=tuple(waiting[:REPORTS_AT_ONCE]))
            await self._link.ask(request, delivered=remove)
        return arrived

    def wake(self) -> None:
        """Say that there is something to deliver."""
        self._wake.set()

    async def keep_in_touch(self, *, first_boot: bool) -> None:
        """Deliver reports until cancelled, with growing pauses while it does not work.

        `first_boot`: the release is yet to be confirmed, so the server is looked for until it was reached once.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            self._wake.clear()
            delivered, waiting, failed = 0, 0, False
            try:
                if first_boot and not self.reached:
                    await self.status()
                delivered = await self.deliver()
                waiting = await asyncio.to_thread(len, self._outbox)
            except (UpdateError, OSError) as error:
                log.info("cannot deliver to the DMS yet: %s", error)
                failed = True
            except Exception:
                # A report is not worth the supervisor, which ends when this task does.
                log.exception("delivering to the DMS failed inside the device")
                failed = True
            if not failed and not waiting:
                pause_s = FIRST_PAUSE_S
                await self._wake.wait()
            elif failed or not delivered:
                await self._pause(pause_s)
                pause_s = pause_s if first_boot else min(pause_s * 2, LONGEST_PAUSE_S)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()


def _is_product(text: str) -> bool:
    head, dash, tail = text.partition("-")
    return bool(dash) and "_" in tail and text == text.upper() and head.isalnum()
