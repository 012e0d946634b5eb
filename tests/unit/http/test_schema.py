"""The real door against its own description: whatever fits the description is served as it says, whatever does not is refused."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import StopReason, events, from_schema

from tests.support.commandline import console
from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess, door_process
from zentrid.commands.catalog import build_registry
from zentrid.commands.registry import Registry
from zentrid.http.config import Config

EXAMPLES: Final = 25
"""For each operation, besides the examples and the boundaries of its description."""
LEAST: Final = 10
"""So many are the examples and the boundaries alone."""
BOUNDARIES_S: Final = 90
"""They take two seconds, and all of them are needed, however busy the machine is."""
GENERATED_S: Final = 20
"""What is generated may be fewer than `EXAMPLES`."""
TAKE_LONG: Final = ("events", "ota", "http_")
"""Commands that wait for the world or for Ctrl-C: a generated line that names one would take its time limit."""
ACCEPTED: Final = ("2xx", "401", "403", "404", "409", "426", "429", "503")
"""426: what is generated never asks for a WebSocket."""
REFUSED: Final = ("400", "401", "403", "404", "405", "426", "429")
CONFIG: Final[dict[str, Any]] = {
    "seed": 1,
    "generation": {"deterministic": True, "max-examples": EXAMPLES, "database": "none", "no-shrink": True},
    "continue-on-failure": True,
    "max-time": BOUNDARIES_S,
    "request-timeout": 20,
    "rate-limit": "90/s",  # a source has 100 a second
    "checks": {
        "enabled": True,
        "positive_data_acceptance": {"expected-statuses": [*ACCEPTED]},
        "negative_data_rejection": {"expected-statuses": [*REFUSED]},
    },
    "operations": [
        {
            # Flags may say that text is base64 that is none: no schema of this size can tell.
            "include-name": "POST /command",
            "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "400"]}},
        }
    ],
    "phases": {"fuzzing": {"enabled": False}, "stateful": {"enabled": False}},  # no operation leads to another
}
GENERATED: Final[dict[str, Any]] = {
    "max-time": GENERATED_S,
    "phases": {name: {"enabled": name == "fuzzing"} for name in ("examples", "coverage", "fuzzing", "stateful")},
}


@pytest.fixture
async def door(device: Device, files: Path, tmp_path: Path) -> AsyncIterator[DoorProcess]:
    """Serve commands that answer at once only."""
    registry = build_registry()
    quick = Registry([command for command in registry if not command.name.startswith(TAKE_LONG)], registry.variables)
    path = tmp_path / "console.sock"
    config = Config(console=str(path), files=str(files), root_filename="webapp/index.html")
    async with console(device, path, quick), door_process(config) as one:
        yield one


@dataclass
class Found:
    """What a run has found."""

    cases: Counter[str] = field(default_factory=Counter)
    """For each operation: how many requests."""
    wrong: set[str] = field(default_factory=set)
    statuses: set[int] = field(default_factory=set)

    def add(self, recorder: Any) -> None:
        """Add what was done with one operation."""
        self.cases[recorder.label] += len(recorder.cases)
        self.statuses |= {one.response.status_code for one in recorder.interactions.values() if one.response}
        for check in itertools.chain.from_iterable(recorder.checks.values()):
            if check.failure_info is not None:
                self.wrong.add(f"{recorder.label}: {check.name}: {check.failure_info.failure.message}")


def described(url: str) -> dict[str, Any]:
    """Return the description that a door serves."""
    with urllib.request.urlopen(f"{url}/.openapi.json", timeout=20) as response:
        return dict(json.load(response))


def schema_of(url: str, description: dict[str, Any], **config: Any) -> Any:
    """Return the description as something to test a door with."""
    return schemathesis.openapi.from_dict(
        description, config=SchemathesisConfig.from_dict({**CONFIG, "base-url": url, **config})
    )


def run(schema: Any, found: Found | None = None) -> Found:
    """Ask for everything that is described, rightly and wrongly; return what was found, besides what had been found."""
    found = found or Found()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            found.add(event.recorder)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            found.wrong.add(str(event))
        elif isinstance(event, events.EngineFinished):
            assert event.stop_reason in (StopReason.COMPLETED, StopReason.MAX_TIME)
    return found


@pytest.mark.timeout(2 * (BOUNDARIES_S + GENERATED_S))
async def test_the_door_is_as_its_description_says(door: DoorProcess, device: Device) -> None:
    description = await asyncio.to_thread(described, door.url)
    found = await asyncio.to_thread(run, schema_of(door.url, description))
    await asyncio.to_thread(run, schema_of(door.url, description, **GENERATED), found)
    assert found.wrong == set()
    assert {200, 400, 405, 426} <= found.statuses
    assert set(found.cases) == {
        f"{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods
    }
    assert found.cases["POST /command"] > LEAST
    assert found.cases["GET /command/{line}"] > LEAST
    assert not device.power.reboots


def no_426(description: dict[str, Any]) -> None:
    del description["paths"]["/terminal"]["get"]["responses"]["426"]


def code_as_text(description: dict[str, Any]) -> None:
    description["components"]["schemas"]["Answer"]["properties"]["code"] = {"type": "string"}


def any_flags(description: dict[str, Any]) -> None:
    description["components"]["schemas"]["Request"]["properties"]["flags"] = {"type": "integer"}
    description["paths"] = {"/log": description["paths"]["/log"], "/command": description["paths"]["/command"]}
    description["paths"]["/command"]["post"]["responses"]["400"] = {
        "description": "", "content": {"text/plain": {"schema": {"type": "string"}}}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (no_426, "status_code_conformance"), (code_as_text, "response_schema_conformance"),
        (any_flags, "content_type_conformance"),
    ],
)  # fmt: skip
async def test_a_description_that_is_wrong_is_found(
    door: DoorProcess, change: Callable[[dict[str, Any]], None], check: str
) -> None:
    description = await asyncio.to_thread(described, door.url)
    change(description)
    found = await asyncio.to_thread(run, schema_of(door.url, description))
    assert any(f": {check}: " in wrong for wrong in found.wrong), found.wrong


async def test_every_command_is_answered_as_described(door: DoorProcess, device: Device) -> None:
    schema = schema_of(door.url, await asyncio.to_thread(described, door.url))
    get, post = schema["/command/{line}"]["GET"], schema["/command"]["POST"]

    def ask(line: str) -> None:
        if "file_create" not in line:  # it would wait for its bytes
            get.Case(path_parameters={"line": line}).call_and_validate()
        post.Case(body={"command": line, "flags": 2, "data": "12345678"}).call_and_validate()

    names = [command.name for command in build_registry() if not command.name.startswith(TAKE_LONG)]
    for line in (*names, "get all", "set system.name ünï", "file_create a 8", "cat a", "cat b", "help set"):
        await asyncio.to_thread(ask, line)
    assert device.settings.values.text("system.name") == "ünï"


REFUSALS: Final[list[tuple[dict[str, Any], dict[str, str], int]]] = [
    ({"username": "u", "password": "p"}, {}, 401),
    ({}, {"Origin": "https://evil.example"}, 403),
    ({"api_enabled": False}, {}, 403),
    ({}, {"Host": "evil.example"}, 421),
]


@pytest.mark.parametrize(("config", "headers", "status"), REFUSALS)
async def test_refusals_are_described(
    door: DoorProcess, client: aiohttp.ClientSession, config: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    description = await asyncio.to_thread(described, door.url)
    await door.tell(**config)
    for path, method in (("/command/{line}", "get"), ("/command", "post"), ("/log", "get"), ("/terminal", "get"),
                         ("/stream", "get")):  # fmt: skip
        async with client.request(method, path.replace("{line}", "version"), headers=headers) as response:
            assert response.status == status
            assert str(status) in description["paths"][path][method]["responses"], path
            assert list(await response.json()) == ["error"]
