"""Pages from templates: everything that is put into a page is escaped; errors become pages too."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import structlog
from aiohttp import web
from jinja2 import DictLoader, Environment, StrictUndefined

from dms_server.accounts.guard import CSRF, CSRF_FIELD, PRINCIPAL
from dms_server.clock import now
from dms_server.errors import DmsError, UnauthenticatedError
from dms_server.http import REQUEST_ID, Handler, core_of

log = structlog.get_logger()

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"


def ago(moment: datetime | None) -> str:
    """Return how long ago something was, as people say it; a date after a month."""
    if moment is None:
        return "never"
    seconds = max(0, int((now() - moment).total_seconds()))
    if seconds >= 30 * 86400:
        return moment.strftime("%Y-%m-%d")
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def size(count_bytes: int) -> str:
    """Return a number of bytes as people read it."""
    value = float(count_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def words(name: str) -> str:
    """Return a name from a program as words."""
    return name.replace("_", " ")


def sentence(text: str) -> str:
    """Return a message as a sentence: a capital first, a full stop at the end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


class Renderer:
    """The templates, read once; blocks on files while it is made."""

    def __init__(self) -> None:
        sources = {path.name: path.read_text("utf-8") for path in TEMPLATES.glob("*.html")}
        self._environment = Environment(
            loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._environment.filters |= {"ago": ago, "size": size, "words": words, "sentence": sentence}
        self.static = {path.name: path.read_bytes() for path in STATIC.iterdir()}

    def page(self, request: web.Request, template: str, *, status: int = 200, **values: object) -> web.Response:
        """Return a page; templates also know `principal` (or none), `csrf`, `path`, `status` and `server`, its address."""
        values |= {
            "principal": request.get(PRINCIPAL),
            "csrf": request.get(CSRF, ""),
            "csrf_field": CSRF_FIELD,
            "path": request.path,
            "status": status,
            "metadata_problems": core_of(request).bundles.problems,
            "server": core_of(request).settings.public_url or f"{request.scheme}://{request.host}",
        }
        text = self._environment.get_template(template).render(**values)
        return web.Response(status=status, text=text, content_type="text/html", headers={"Cache-Control": "no-store"})


RENDERER = web.AppKey("renderer", Renderer)


def render(request: web.Request, template: str, *, status: int = 200, **values: object) -> web.Response:
    """Return a page made from a template."""
    return request.config_dict[RENDERER].page(request, template, status=status, **values)


def for_people(request: web.Request) -> bool:
    """Tell whether an address is a page (and not the API or a health check)."""
    return not request.path.startswith(("/api/", "/healthz", "/readyz"))


@web.middleware
async def page_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Show errors of pages as pages; who is not signed in goes to the sign-in page."""
    if not for_people(request):
        return await handler(request)
    try:
        return await handler(request)
    except UnauthenticatedError:
        raise web.HTTPSeeOther(f"/signin?next={quote(request.path_qs if request.method == 'GET' else '/')}") from None
    except DmsError as error:
        return render(request, "error.html", status=error.status, message=str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        message = "There is no such page." if error.status == 404 else error.reason
        return render(request, "error.html", status=error.status, message=message)
    except Exception:
        log.exception("page_failed", id=request[REQUEST_ID], path=request.path)
        message = f"The server failed; its log says why under {request[REQUEST_ID]}."
        return render(request, "error.html", status=500, message=message)
