"""The `ota` command: starts an update and follows it, looks for one, or cancels the running one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.commands.updaterun import UpdateRun
from zentrid.commands.upload import open_door, start_from
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError, Option
from zentrid.core.update import State
from zentrid.core.version import BadVersionError, parse_version
from zentrid.errors import ZentriError
from zentrid.ports import UpdateOptions, UpdateProgress

NOT_CLAIMED = '{"result":"fail","message":"device not claimed"}'
"""What the console prints, to the letter, when the DMS says that nobody has claimed this device."""


async def _ota(call: Call) -> str | None:
    match call.arguments.values.get("action"):
        case "cancel":
            return await _cancel(call)
        case "upload":
            return await _upload(call)
    run = call.ctx.update_runner.start(_options(call))
    return _outcome(call, await _follow(call, run))


async def _upload(call: Call) -> str | None:
    if {"b", "u"} & set(call.arguments.options):
        raise CommandError(Code.BAD_ARGUMENT, "'ota upload' installs what is sent; leave out -b and -u.")
    door = await open_door(call)
    try:
        return _outcome(call, await _follow(call, await start_from(call, door), door.tell))
    finally:
        await door.close()


async def _cancel(call: Call) -> str | None:
    if call.arguments.options:
        raise CommandError(Code.TOO_MANY_ARGUMENTS, "'ota cancel' takes no options.")
    waited = call.ctx.updates.state == State.REBOOTING.value
    if not await call.ctx.updates.cancel():
        raise CommandError(Code.FAILED, "There is no update to cancel: none runs, and none waits for its restart.")
    return "The installed release was taken back; the one that runs stays." if waited else None


def _options(call: Call) -> UpdateOptions:
    options = call.arguments.options
    version = options.get("b")
    if version is not None:
        try:
            parse_version(version)
        except BadVersionError as error:
            raise CommandError(Code.BAD_ARGUMENT, f"-b: {error}") from None
    if version is not None and "u" in options:
        raise CommandError(
            Code.BAD_ARGUMENT, "-b and -u exclude each other: a file or URL is one certain bundle already."
        )
    return UpdateOptions(
        force=call.arguments.flag("f"), version=version, source=options.get("u"), check_only=call.arguments.flag("c")
    )


async def _follow(
    call: Call, run: UpdateRun, tell: Callable[[UpdateProgress], Awaitable[None]] | None = None
) -> UpdateProgress | None:
    """Show progress until the end; Ctrl-C cancels the update, which then still ends by itself."""
    watcher = asyncio.create_task(_cancel_on_interrupt(call))
    last: UpdateProgress | None = None
    try:
        async for news in run.watch():
            last = news
            if tell is not None:
                await tell(news)
            if not news.done:
                call.out.progress(news.percent, f"{news.state}: {news.message}" if news.message else news.state)
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
    return last


async def _cancel_on_interrupt(call: Call) -> None:
    while True:
        await call.interrupt.wait()
        call.interrupt.clear()
        try:
            if not await call.ctx.updates.cancel():
                call.out.log("The update is past cancelling; it goes on.")
        except ZentriError as error:
            call.out.log(f"The update cannot be taken back: {error}")


def _outcome(call: Call, last: UpdateProgress | None) -> str | None:
    """Return the answer's body for the last news of an update; raises CommandError if it failed."""
    if last is None or not last.done:
        raise CommandError(Code.FAILED, "The update ended without a result; the log has the details.")
    if not last.ok:
        reason = last.message or "The update failed; the log has the details."
        raise CommandError(Code.FAILED, NOT_CLAIMED if reason == "device not claimed" else reason)
    if not last.reboot:
        return last.message or None
    ending = "Rebooting" if call.ctx.reboots_after_update() else "Use 'reboot' to start it."
    return f"{last.message}\n{ending}" if last.message else ending


COMMANDS = (
    Command(
        "ota",
        "update the firmware: to the newest release for this device, unless told otherwise",
        _ota,
        "ota -b 1.4.0",
        arguments=(
            Argument(
                "action",
                "cancel: stop the running update, or take back an installed one before its restart; upload: let one bundle "
                "be sent to this device by HTTP",
                optional=True,
                choices=("cancel", "upload"),
            ),
        ),
        web_addresses=True,
        options=(
            Option("f", "install even if that version runs already"),
            Option("b", "a certain version", "version"),
            Option("u", "from a bundle file, on the device or on any web server, instead of the DMS", "url|file"),
            Option("c", "only look whether there is an update"),
        ),
        timeout_s=None,
        interruptible=True,
    ),
)
