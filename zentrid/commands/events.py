"""The `events` command: follows what happens on the device."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Final

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.core.events import DeviceEvent
from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError, Option

MAX_COUNT: Final = 10_000


async def _events(call: Call) -> None:
    """Show events until Ctrl-C, or until there were as many as asked for."""
    left = _count(call)
    follower = call.ctx.events.follow()
    interrupted = asyncio.ensure_future(call.interrupt.wait())
    try:
        async with aclosing(follower.events()) as events:
            while left:
                event = asyncio.ensure_future(anext(events))
                try:
                    await asyncio.wait((event, interrupted), return_when=asyncio.FIRST_COMPLETED)
                    if not event.done():
                        return
                    call.out.log(_line(call, event.result()))
                finally:
                    event.cancel()
                    await asyncio.gather(event, return_exceptions=True)
                left -= 1
    finally:
        interrupted.cancel()
        follower.close()


def _line(call: Call, event: DeviceEvent) -> str:
    """Return a line: for programs a JSON object, for people a time and a sentence."""
    if call.session.machine:
        return json.dumps({"time": call.ctx.utc_text(), **event.to_json()}, separators=(",", ":"))
    return f"{call.ctx.utc_text()} {event.sentence()}"


def _count(call: Call) -> int:
    """Return how many events are wanted; -1: no end."""
    text = call.arguments.options.get("n")
    if text is None:
        return -1
    if not (text.isascii() and text.isdigit()):
        raise CommandError(Code.BAD_ARGUMENT, f"-n: '{text}' is no number of events.")
    if len(text) > 5 or not 1 <= int(text) <= MAX_COUNT:
        raise CommandError(Code.OUT_OF_BOUNDS, f"-n: 1 to {MAX_COUNT} events.")
    return int(text)


COMMANDS = (
    Command(
        "events",
        "follow what happens: updates, slots, faults; in machine mode a JSON object a line; Ctrl-C ends it",
        _events,
        "events",
        options=(Option("n", "end after so many events", "count"),),
        timeout_s=None,
        interruptible=True,
        ends_with_session=lambda _given: True,
    ),
)
