"""Clients as they are in the field, unchanged: one in Python that codes everything, one in JavaScript under Node.js."""

import asyncio
import base64
import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess
from zentrid.commands.catalog import build_registry

SCRIPT = Path(__file__).parents[2] / "support" / "field_client.js"


class FieldClient:
    """Posts base64 with flags 7; its methods are the lines of `help commands`."""

    def __init__(self, host: str) -> None:
        self._host = host
        for line in self._send("help commands").splitlines():
            full, _, short = line.partition(" : ")
            for name in (full, short):
                setattr(self, name.replace(" ", "_"), self._method(short))

    def _send(self, line: str, data: bytes = b"") -> str:
        body = {
            "command": base64.b64encode(line.encode()).decode(), "flags": 7, "data": base64.b64encode(data).decode(),
        }  # fmt: skip
        request = urllib.request.Request(f"{self._host}/command", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=20) as response:
            answer = json.load(response)
        if answer["code"]:
            raise RuntimeError(base64.b64decode(answer["response"]).decode().strip())
        return base64.b64decode(answer["response"]).decode().removesuffix("\r\n")

    def _method(self, name: str) -> Callable[..., str]:
        return lambda *words: self._send(" ".join((name, *map(str, words))))


def use(host: str) -> dict[str, Any]:
    client = FieldClient(host)
    names = [name for name in vars(client) if not name.startswith("_")]
    found: dict[str, Any] = {"names": names, "version": client.ver(), "set": client.set("system.name", "boiler")}  # type: ignore[attr-defined]
    found["get"] = client.get("sy", "n")  # type: ignore[attr-defined]
    found["dms"] = client.dms_status()  # type: ignore[attr-defined]
    try:
        client.get("nothing.at.all")  # type: ignore[attr-defined]
    except RuntimeError as error:
        found["failed"] = str(error)
    return found


async def test_the_python_client(door: DoorProcess, device: Device):
    found = await asyncio.to_thread(use, door.url)
    names = {name.replace(" ", "_") for command in build_registry() for name in (command.name, command.short_name)}
    assert set(found["names"]) == names
    assert str(found["version"]).startswith("DEMO-VIRT_SENSOR-1.4.0")
    assert (found["set"], found["get"]) == ("Set OK", "boiler")
    assert "claimed" in str(found["dms"])
    assert found["failed"] == "Bad argument"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js here")
async def test_the_javascript_client(door: DoorProcess, device: Device):
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), door.url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        out, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    version, was_set, name, commands, saved, failed = json.loads(out)
    assert version["response"].startswith("DEMO-VIRT_SENSOR-1.4.0")
    assert [answer["code"] for answer in (version, was_set, name, commands, saved)] == [0] * 5
    assert name["response"] == 'a b"c\\ü\r\n'
    assert "version : ver\r\n" in commands["response"]
    assert (failed["code"], failed["response"]) == (7, "Bad argument\r\n")
    assert [answer["id"] for answer in (version, was_set, name)] == [1, 2, 3]
