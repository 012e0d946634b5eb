"""The description of the interface says what the interface does."""

import json

import aiohttp

from tests.support.httpdoor import DoorProcess
from zentrid.http.config import Config
from zentrid.http.site import PAGES, Site


def test_every_address_is_described():
    described = set(json.loads((PAGES / "openapi.json").read_text())["paths"])
    served = {resource.canonical for resource in Site(Config(), secure=False).application().router.resources()}
    pages = {f"/.{path.name}" for path in PAGES.iterdir()}
    assert served - pages - {"/{path}"} == described
    assert pages <= served


async def test_it_is_served_and_its_answer_is_the_answer(door: DoorProcess, client: aiohttp.ClientSession):
    async with client.get("/.openapi.json") as response:
        assert response.content_type == "application/json"
        api = await response.json()
    schema = api["components"]["schemas"]["Answer"]
    for line in ("version", "nonsense"):
        async with client.get(f"/command/{line}") as response:
            answer = await response.json()
        assert set(schema["required"]) <= set(answer) <= set(schema["properties"])
