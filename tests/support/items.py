"""Releases of applications and files, and a device that runs a boot application of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.applications import MarkedCage
from tests.support.device import Device, factory_state
from tests.support.doorman import Doorman
from tests.support.fleet import BOARD, PRODUCT, Fleet, Release
from zentrid.adapters.apps import AppRunner
from zentrid.adapters.items import ItemFolder
from zentrid.adapters.ringfile import RingFile
from zentrid.bundle.encode import encode_full
from zentrid.bundle.manifest import Item, Manifest, Removal
from zentrid.bundle.tree import HashTree
from zentrid.core.apps import AppLimits
from zentrid.core.health import Policy
from zentrid.core.version import parse_version
from zentrid.ports import AppExit
from zentrid.update.itemtrial import Checks

Payload = tuple[Item, bytes]

STAYS = "import time\nprint('up {}')\nimport os\ntime.sleep(100)"
CRASHES = "print('bad luck {}')\nraise SystemExit(3)"
PATIENCE = Policy(healthy_after_s=1.0, deadline_s=20.0, commit_offline=True)


def payload(item_type: Any, name: str, data: bytes, **fields: Any) -> Payload:
    root = HashTree.from_reader(io.BytesIO(data)).root.hex()
    return Item(type=item_type, name=name, size_bytes=len(data), root_hash=root, **fields), data


def script(source: str) -> bytes:
    return f"#!{sys.executable} -ISu\n{source}\n".encode()


def app(name: str, source: str, version: str | None = None) -> Payload:
    """A single program."""
    made = None if version is None else parse_version(version)
    return payload("app", name, script(source), kind="script", entry="main", version=made)


def file(path: str, data: bytes, name: str | None = None) -> Payload:
    return payload("file", name or path.replace("/", "_"), data, path=path, kind="data")


def description(name: str, command: str = "bin/main") -> bytes:
    return json.dumps({"name": name, "version": "3.2.1", "command": [command]}).encode()


def member(name: str, mode: int = 0o644, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.mode = mode
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            if info.isreg():
                info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tar_app(name: str, *more: tuple[tarfile.TarInfo, bytes], source: str = STAYS) -> Payload:
    data = tar(
        (member("bin", 0o755, type=tarfile.DIRTYPE), b""),
        (member("bin/main", 0o4777), script(source)),
        (member("app.json", 0o666), description(name)),
        *more,
    )
    return payload("app", name, data, kind="tar", entry="bin/main")


def add(release: Release | None, version: str, payloads: Sequence[Payload], **fields: Any) -> Release:
    """A release of these, with the firmware of `release` if there is one."""
    firmware = release.manifest.items if release else ()
    manifest = Manifest(
        product=fields.pop("product", PRODUCT),
        version=parse_version(version),
        compatible=(BOARD,),
        items=(*firmware, *(item for item, _ in payloads)),
        remove=tuple(Removal(item_type, name) for item_type, name in fields.pop("remove", ())),
    )
    versions: dict[str, Any] = {name: parse_version(value) for name, value in fields.items()}
    manifest = replace(manifest, **versions)
    streams = dict(release.streams) if release else {}
    for item, data in payloads:
        out = io.BytesIO()
        encode_full(io.BytesIO(data), out, level=1)
        streams[item.root_hash] = out.getvalue()
    tree = release.tree if release else HashTree.from_reader(io.BytesIO(b""))
    return Release(manifest, release.kernel if release else b"", release.rootfs if release else b"", streams, tree)


class Household:
    """The boot application of a device, kept running by the real runner, as long as the supervisor lives."""

    def __init__(self, device: Device, setting: str, policy: Policy = PATIENCE) -> None:
        self.device = device
        self.exits: list[AppExit] = []
        self.hooks: tuple[str, ...] = ()
        self.setting = setting
        self.folder = ItemFolder(device.folder / "data" / "items")
        self.ring = RingFile(device.folder / "log" / "app.log")
        self._policy = policy
        self._tasks: list[asyncio.Task[Any]] = []

    async def _ask_hooks(self) -> tuple[str, ...]:
        return self.hooks

    async def _ended(self, end: AppExit) -> None:
        self.exits.append(end)
        self.device.manager.items.note_end(end)

    async def begin(self) -> None:
        """Start the supervisor's part, as `zentrid.app` does."""
        home = self.device.folder / "home"
        self.runner = AppRunner(
            (self.folder.apps(self.device.running), self.device.folder / "apps"), self.ring, lambda: AppLimits(64, 32),
            self._ended, lambda _pid: None, cage=MarkedCage(home), account=None, home=home,
            hold=self.device.folder / "held",
        )  # fmt: skip
        checks = Checks(self.runner, self._ask_hooks, lambda: self._policy, step_s=0.05)
        self.device.parts_changes = {**self.device.parts_changes, "checks": checks}
        self.device.start()
        await self.device.manager.start()
        self.runner.follow(self.setting)
        self._tasks = [asyncio.create_task(self.runner.run()), asyncio.create_task(self.device.manager.items.resume())]

    async def end(self) -> None:
        """End it, as a restart does."""
        self._tasks[0].cancel()
        for task in self._tasks[1:]:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError, BaseException):
                await task
        self._tasks = []

    async def trial_over(self) -> None:
        """Wait for the end of a trial that a start has found."""
        await asyncio.wait_for(self._tasks[1], 30)

    def said(self) -> list[str]:
        return [line.partition(" app: ")[2] for line in self.runner.log_lines(1000) if " app: " in line]

    async def until(self, condition: Any, timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)


async def device_with(release: Release, folder: Path, fleet: Fleet, doorman: Doorman) -> Device:
    """Return a device that runs `release` and is good; its other slot is empty."""
    device = Device(folder, fleet, doorman)
    device.flash("a", release)
    device.flash("r", release)
    device.store.write(factory_state())
    fleet.publish(release)
    device.boot()
    await device.manager.start()
    return device
