"""The HTTP door's process for the Web App's tests: files always come with the policy that pages of the device have."""

import runpy
from typing import Final

from aiohttp import web

import tests.support.http_neighbour  # noqa: F401 - who comes from the loopback is taken for a neighbour
from zentrid.http.site import Site

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
_file = Site._file


async def _strict_file(site: Site, request: web.Request) -> web.StreamResponse:
    response = await _file(site, request)
    response.headers.setdefault("Content-Security-Policy", POLICY)
    return response


setattr(Site, "_file", _strict_file)  # noqa: B010

if __name__ == "__main__":
    runpy.run_module("zentrid.http", run_name="__main__")
