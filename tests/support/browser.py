"""A real browser for tests: Debian's Chromium, driven by playwright, with an empty profile and no network of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from playwright import async_api, sync_api

DEADLINE_MS: Final = 60_000
"""For each step; the machine may be busy with boards."""
_FLAGS: Final = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
LAUNCH: Final[dict[str, Any]] = {
    "executable_path": "/usr/bin/chromium",
    "args": [*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])],  # Chromium's sandbox refuses root
}
PHONE: Final[dict[str, Any]] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
# Without this `expect` gives up after 5 s, whatever the pages' own deadline is.
async_api.expect.set_options(timeout=DEADLINE_MS)
sync_api.expect.set_options(timeout=DEADLINE_MS)


class Complaints(list[str]):
    """What the browser found wrong with the pages: exceptions, errors in the console, requests to anywhere else."""

    def watch(self, page: Any, origin: str) -> None:
        """Listen to a page that must ask `origin` (`http://host:port`) only."""
        page.on("pageerror", lambda error: self.append(f"exception: {error}"))
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("request", lambda request: self._judge(request.url, origin))

    def _hear(self, kind: str, text: str) -> None:
        if kind == "error":
            self.append(f"console: {text}")

    def _judge(self, url: str, origin: str) -> None:
        if not url.startswith((f"{origin}/", f"{origin.replace('http', 'ws', 1)}/", "blob:", "data:")):
            self.append(f"request: {url}")


@contextmanager
def page(origin: str, **context: Any) -> Iterator[tuple[sync_api.Page, Complaints]]:
    """Give a page of a new browser and what it complains of; `PHONE`, `http_credentials`, … as context options."""
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(**LAUNCH)
        try:
            made = browser.new_context(base_url=origin, **context).new_page()
            made.set_default_timeout(DEADLINE_MS)
            complaints = Complaints()
            complaints.watch(made, origin)
            yield made, complaints
        finally:
            browser.close()


@asynccontextmanager
async def async_page(origin: str, **context: Any) -> AsyncIterator[tuple[async_api.Page, Complaints]]:
    """The same for tests with an event loop."""
    async with async_api.async_playwright() as play:
        browser = await play.chromium.launch(**LAUNCH)
        try:
            made = await (await browser.new_context(base_url=origin, **context)).new_page()
            made.set_default_timeout(DEADLINE_MS)
            complaints = Complaints()
            complaints.watch(made, origin)
            yield made, complaints
        finally:
            await browser.close()
