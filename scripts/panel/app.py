"""The panel's web side: a page, and one WebSocket for each that looks at it. For this machine only."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from aiohttp import WSMsgType, web

from scripts.board_driver.errors import BoardAssertionError, MachineError
from scripts.board_driver.serial import LogReader
from scripts.panel import packages
from scripts.panel.desk import Desk, Look
from scripts.panel.status import Status

STATIC: Final = Path(__file__).with_name("static")
FILES: Final = {"": "index.html", **{name: name for name in ("panel.js", "panel.css", "icon.svg")}}
TYPES: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
STEP_S: Final = 0.1
LOOK_EVERY_S: Final = 0.1
"""The lamp blinks with a quarter of a second."""
MAX_MESSAGE_BYTES: Final = 8 * 1024
MAX_TYPED_CHARS: Final = 2048
MAX_PAGES: Final = 8
CONSOLE_BYTES: Final = 32 * 1024
KEPT_LOG_BYTES: Final = 128 * 1024
"""A new page gets so much of what the console has printed before."""
HEADERS: Final = {
    # xterm.js writes its colours and sizes into style elements of its own.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Any]


class Panel:
    """What all pages share."""

    def __init__(self, name: str, desk: Desk, status: Status, watched: asyncio.Event, log: Path) -> None:
        self.name = name
        self.desk = desk
        self.status = status
        self.look = Look(power=False, led=False, pressed=False)
        self._watched = watched
        self._log = log
        self._pages: set[Page] = set()
        desk.complain = self._complain_from_a_thread
        self._loop = asyncio.get_running_loop()

    def open(self, socket: web.WebSocketResponse) -> Page | None:
        """Return a new page; None: there are too many."""
        if len(self._pages) >= MAX_PAGES:
            return None
        size = self._log.stat().st_size if self._log.exists() else 0
        page = Page(self, socket, LogReader(self._log, max(0, size - KEPT_LOG_BYTES)))
        self._pages.add(page)
        self._watched.set()
        return page

    async def close(self, page: Page) -> None:
        """Forget a page; a finger that it left on the button is taken away."""
        self._pages.discard(page)
        if not self._pages:
            self._watched.clear()
        if page.pressing:
            await asyncio.to_thread(self.desk.release)

    async def run(self) -> None:
        """Keep looking at the board while somebody wants to know."""
        while True:
            await self._watched.wait()
            self.look = await asyncio.to_thread(self.desk.look)
            await asyncio.sleep(LOOK_EVERY_S)

    def complain(self, sentence: str) -> None:
        """Show a sentence on all pages."""
        for page in self._pages:
            page.complaints.append(sentence)

    def _complain_from_a_thread(self, sentence: str) -> None:
        self._loop.call_soon_threadsafe(self.complain, sentence)


class Page:
    """One page: what it has been told, and what it does."""

    def __init__(self, panel: Panel, socket: web.WebSocketResponse, log: LogReader) -> None:
        self._panel = panel
        self._socket = socket
        self._log = log
        self._told: dict[str, Any] = {}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pressing = False
        self.complaints: list[str] = []

    async def tell(self) -> None:
        """Send what is new until the page is gone. A page that reads slowly is told less often, nobody waits for it."""
        await self._send("board", {"name": self._panel.name})
        while not self._socket.closed:
            await self._send("look", self._panel.look.to_json())
            await self._send("status", self._panel.status.latest)
            while self.complaints:
                await self._socket.send_json({"kind": "complaint", "text": self.complaints.pop(0)})
            if self._log.offset > (size := await asyncio.to_thread(self._size)):
                self._log.offset = 0 if size else self._log.offset
            if data := await asyncio.to_thread(self._log.read, CONSOLE_BYTES):
                await self._socket.send_json({"kind": "console", "text": self._decoder.decode(data)})
            else:
                await asyncio.sleep(STEP_S)

    def _size(self) -> int:
        with suppress(FileNotFoundError):
            return self._panel._log.stat().st_size
        return 0

    async def _send(self, kind: str, value: dict[str, Any]) -> None:
        if self._told.get(kind) != value:
            self._told[kind] = value
            await self._socket.send_json({"kind": kind, **value})

    async def obey(self, text: str) -> None:
        """Do what the page asks for; what cannot be done is said."""
        try:
            wish = json.loads(text)
            await self._do(str(wish["do"]), wish)
        except (MachineError, BoardAssertionError) as error:
            self.complaints.append(f"{error}.")
        except (ValueError, TypeError, KeyError):
            self.complaints.append("The page asked for something that the panel does not know.")

    async def _do(self, what: str, wish: dict[str, Any]) -> None:
        desk = self._panel.desk
        match what:
            case "press":
                self.pressing = True
                await asyncio.to_thread(desk.press)
            case "release":
                self.pressing = False
                await asyncio.to_thread(desk.release)
            case "power":
                self._panel.status.forget()
                await asyncio.to_thread(desk.power, on=wish["on"] is True)
            case "reset":
                self._panel.status.forget()
                await asyncio.to_thread(desk.reset)
            case "type":
                await asyncio.to_thread(desk.type, str(wish["text"])[:MAX_TYPED_CHARS].encode())
            case _:
                raise ValueError(what)


PANEL: Final = web.AppKey("panel", Panel)
PACKAGES: Final = web.AppKey("packages", Path)


@web.middleware
async def only_here(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Serve nobody but pages of this panel: another page in the same browser must not be able to press the button.

    A name that leads here is not enough (it could be anybody's), and a WebSocket says where its page came from.
    """
    port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
    here = {f"127.0.0.1:{port}", f"localhost:{port}"}
    origin = request.headers.get("Origin")
    wants_socket = request.path == "/socket"
    if request.host not in here or (origin is None and wants_socket) or (origin and origin != f"http://{request.host}"):
        raise web.HTTPForbidden(text="The panel is for pages of its own only.\n")
    response: web.StreamResponse = await handler(request)
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


async def file(request: web.Request) -> web.Response:
    """Serve a file of the page, or one of the packages that it uses."""
    name = request.match_info["name"]
    path = STATIC / FILES[name] if name in FILES else request.app[PACKAGES] / name
    body = await asyncio.to_thread(path.read_bytes)
    return web.Response(body=body, content_type=TYPES[path.suffix[1:]], charset="utf-8")


async def socket(request: web.Request) -> web.StreamResponse:
    """Serve one page's WebSocket."""
    panel = request.app[PANEL]
    connection = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=20)
    page = panel.open(connection)
    if page is None:
        raise web.HTTPServiceUnavailable(text=f"{MAX_PAGES} pages are open already.\n")
    try:
        await connection.prepare(request)
        telling = asyncio.create_task(page.tell())
        try:
            async for message in connection:
                if message.type is WSMsgType.TEXT:
                    await page.obey(message.data)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
    finally:
        await panel.close(page)
    return connection


def create_app(make: Callable[[], Panel], fetched: Path) -> web.Application:
    """Return the application; `make` is called in its event loop, `fetched` is the folder of `packages`."""
    app = web.Application(middlewares=[only_here], client_max_size=MAX_MESSAGE_BYTES)
    app.router.add_get("/socket", socket)
    app[PACKAGES] = fetched
    names = "|".join(re.escape(name) for name in (*FILES, *packages.FILES))
    app.router.add_get(f"/{{name:(?:{names})}}", file)

    async def running(app: web.Application) -> AsyncIterator[None]:
        panel = app[PANEL] = make()
        tasks = [asyncio.create_task(panel.run()), asyncio.create_task(panel.status.run())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    app.cleanup_ctx.append(running)
    return app
