"""The `webapp_recover` command: the Web App's files as they should be."""

from __future__ import annotations

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError

_STATUS = "status"


async def _recover(call: Call) -> str:
    web_app = call.ctx.web_app
    if web_app is None:
        raise CommandError(Code.FAILED, "This device has no Web App to restore.")
    action = call.arguments.values.get("source", "")
    if action == _STATUS:
        return web_app.status
    return await web_app.recover(action, call.out.progress, call.interrupt)


COMMANDS = (
    Command(
        "webapp_recover",
        "restore the Web App's files: from the DMS if it can be reached, else from the copies on the device",
        _recover,
        "webapp_recover image",
        "wre",
        arguments=(
            Argument(
                "source",
                "dms: what the server has signed, or nothing; image: the copy in the image; status: how far it is",
                optional=True,
                choices=("dms", "image", _STATUS),
            ),
        ),
        timeout_s=None,
        interruptible=True,
        notes="Files of the owner's own stay. http.server.root_filename becomes its default again if its page is not there. "
        "After a power cut or Ctrl-C the next webapp_recover goes on.",
    ),
)
