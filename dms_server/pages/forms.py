"""Reading forms. Their CSRF field is checked before any handler runs."""

from __future__ import annotations

from aiohttp import web

FIELD_MAX_CHARS = 4096


async def field(request: web.Request, name: str) -> str:
    """Return a text field of the form, empty if absent, cut at a limit."""
    value = (await request.post()).get(name, "")
    return value[:FIELD_MAX_CHARS] if isinstance(value, str) else ""


def local_path(target: str) -> str:
    """Return `target` if it is a path on this server, else `/`: no link leads elsewhere after sign-in."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target[:512] if plain else "/"
