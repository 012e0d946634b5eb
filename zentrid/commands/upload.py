"""`ota upload`: opens the upload door, waits for one bundle, and installs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from zentrid.commands.call import Call
from zentrid.commands.context import Door
from zentrid.commands.updaterun import UpdateRun
from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.uploads import OPEN_S
from zentrid.ports import UpdateOptions

_T = TypeVar("_T")


async def open_door(call: Call) -> Door:
    """Open the door and say how to come in. Raises CommandError or UploadError."""
    run = call.ctx.update_runner.run
    if run is not None and not run.finished:
        raise CommandError(Code.FAILED, "An update is running already; wait for it, or stop it with 'ota cancel'.")
    network = await asyncio.to_thread(call.ctx.host.network)
    door = await call.ctx.uploads.open()
    address = network.ip if network is not None and network.ip else "<address of the device>"
    call.out.log(
        f"Send one bundle within {OPEN_S / 60:.0f} minutes (Ctrl-C closes the door):\n"
        f'  curl -T new.zb -H "Authorization: Bearer {door.token}" http://{address}:{door.port}/bundle'
    )
    return door


async def start_from(call: Call, door: Door) -> UpdateRun:
    """Wait for the bundle and start its installation. Raises CommandError or UploadError."""
    await _unless_interrupted(call, _receive(call, door))
    options = UpdateOptions(force=call.arguments.flag("f"), check_only=call.arguments.flag("c"), source=str(door.path))
    return call.ctx.update_runner.start(options)


async def _receive(call: Call, door: Door) -> None:
    async for news in door.news():
        if news.kind == "refused":
            call.out.log(f"Refused: {news.sentence}.")
        elif news.total_bytes:
            call.out.progress(news.received_bytes * 100 // news.total_bytes, f"receiving: {news.received_bytes} bytes")


async def _unless_interrupted(call: Call, work: Awaitable[_T]) -> _T:
    task = asyncio.ensure_future(work)
    interrupted = asyncio.create_task(call.interrupt.wait())
    try:
        await asyncio.wait([task, interrupted], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CommandError(Code.FAILED, "The upload door is closed; nothing was installed.")
        return task.result()
    finally:
        for one in (task, interrupted):
            one.cancel()
        await asyncio.gather(task, interrupted, return_exceptions=True)
