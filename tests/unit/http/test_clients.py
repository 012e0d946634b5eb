"""Clients as they are in the field, unchanged: one in Python that codes everything, one in JavaScript under Node.js."""

import asyncio
import base64
import json
import re
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess
from zentrid.commands.catalog import build_registry
from zentrid.http.site import PAGES

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


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js here")
async def test_the_recovery_page_at_work(door: DoorProcess, device: Device):
    await door.tell(root_filename="webapp/none.html")
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT.with_name("recovery_page.js")), door.url, str(PAGES / "recovery.js"), str(PAGES / "recovery.html"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    found = json.loads(out)
    shown, answers = found["shown"], found["answers"]
    assert shown["title"] == "Recovery"
    assert shown["version"].startswith("DEMO-VIRT_SENSOR-1.4.0")
    assert shown["problems"] == ["The first page webapp/none.html is not there, or is no usable name."]
    assert set(shown["visible"]) == {"trouble", "account", "console"}
    assert answers[0] == device.ctx.identity.uuid
    assert "help commands" in answers[1]
    assert answers[2].startswith("Set and saved.")
    values = device.settings.values
    assert (values.text("http.server.username"), values.text("http.server.password")) == ("ad min", 'a "long" \\one')
    assert b"ad min" in device.settings.path.read_bytes()


def test_the_recovery_page_has_what_its_script_looks_for():
    page, script = ((PAGES / f"recovery.{kind}").read_text() for kind in ("html", "js"))
    wanted = set(re.findall(r'(?:part|on)\("([\w-]+)"', script))
    assert len(wanted) > 8
    assert wanted <= set(re.findall(r'id="([\w-]+)"', page))
    assert set(re.findall(r'form\.get\("(\w+)"\)', script)) <= set(re.findall(r'name="(\w+)"', page))
    # The page's own policy allows no script or style inside of it.
    assert not re.search(r"<script(?! src=)|<style| style=| on\w+=", page)
