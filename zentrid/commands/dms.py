"""Dealings with the Device Management Server, apart from updates."""

from __future__ import annotations

import re

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError

_PRODUCT = re.compile(r"[A-Z0-9]{2,16}-[A-Z0-9]{2,16}_[A-Z0-9]{2,32}", re.ASCII)
MAX_CREDENTIAL_BYTES = 256
_TRUE = ("1", "true", "yes", "claimed")


def _check_length(name: str, value: str) -> None:
    size_bytes = len(value.encode("utf-8", "replace"))
    if not 1 <= size_bytes <= MAX_CREDENTIAL_BYTES:
        raise CommandError(
            Code.OUT_OF_BOUNDS, f"The {name} has {size_bytes} bytes; 1 to {MAX_CREDENTIAL_BYTES} are allowed."
        )


async def _claim(call: Call) -> str:
    user, secret = call.arguments.values["user|product"], call.arguments.values["password|token"]
    _check_length("user name or product", user)
    _check_length("password or token", secret)
    sentence = await call.ctx.dms.claim(user, secret)
    call.ctx.note_contact(claimed="1")
    return sentence or "Success"


async def _activate(call: Call) -> str:
    product = call.arguments.values["code"]
    if _PRODUCT.fullmatch(product) is None:
        raise CommandError(
            Code.BAD_ARGUMENT, f"'{product}' is no product code; one looks like ACME-VIRT_SENSOR (capitals, digits)."
        )
    sentence = await call.ctx.dms.activate(product)
    call.ctx.note_contact(product=product)
    return sentence or "Success"


async def _status(call: Call) -> str:
    status = await call.ctx.dms.status()
    claimed = str(status.get("claimed", "")).lower() in _TRUE
    known = {name: str(status.get(name) or "") for name in ("owner", "product", "tag", "time")}
    call.ctx.note_contact(claimed="1" if claimed else "0", **known)
    host, port = call.ctx.dms_server()
    lines = {
        "server": f"{host}:{port}",
        "claimed": "yes" if claimed else "no",
        "owner": known["owner"],
        "product": known["product"],
        "tag": known["tag"],
        "server_time": known["time"],
        "last_contact": call.ctx.dms_facts["last_contact"],
    }
    if alert := str(status.get("alert") or ""):
        lines["alert"] = alert
    return "\n".join(f"{name}: {value}".rstrip() for name, value in lines.items())


COMMANDS = (
    Command(
        "dms claim",
        "claim this device with your DMS account, or with a product's one-time token",
        _claim,
        'dms claim maker "my password"',
        short="dms_claim",
        arguments=(
            Argument("user|product", "your DMS user name, or a product code"),
            Argument("password|token", "the password, or the token", secret=True),
        ),
    ),
    Command(
        "dms activate",
        "bind this device to a product",
        _activate,
        "dms activate ACME-VIRT_SENSOR",
        short="dms_activate",
        arguments=(Argument("code", "the product code"),),
    ),
    Command(
        "dms status",
        "ask the DMS about this device: server, claim, product, tag, last contact",
        _status,
        "dms status",
        short="dms_status",
    ),
)
