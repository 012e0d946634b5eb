"""A runner of the boot application on folders of its own, for tests of it."""

import asyncio
import contextlib
import time
from pathlib import Path

from tests.support.applications import MarkedCage, make_package
from zentrid.adapters.apps import AppRunner
from zentrid.adapters.ringfile import RingFile
from zentrid.core.apps import AppLimits
from zentrid.ports import AppExit, Frame

FRAME = Frame("/app/main", "ab12", 0x1234)
SLEEP = "import time\nprint('up')\ntime.sleep(100)"


class Bench:
    """A runner on folders of its own."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.top, self.second = tmp / "data", tmp / "image"
        self.cage = MarkedCage(tmp / "home")
        self.exits: list[AppExit] = []
        self.crashes: dict[str, bool] = {}
        self.going_down = False
        self.error: Exception | None = None
        self.ring = RingFile(tmp / "log" / "app.log")
        self.runner = AppRunner(
            (self.top, self.second), self.ring, lambda: AppLimits(64, 32), self._on_exit,
            lambda pid: (11, (FRAME,)) if self.crashes.get("take") else None,
            cage=self.cage, account=None, home=tmp / "home", hold=tmp / "held", going_down=lambda: self.going_down,
        )  # fmt: skip
        self.task: asyncio.Task[None] | None = None

    async def _on_exit(self, end):
        self.exits.append(end)
        if self.error is not None:
            raise self.error

    def package(self, source, name="one", **options):
        return make_package(self.top, name, source, **options)

    def begin(self, setting=None):
        if setting is not None:
            self.runner.follow(setting)
        self.task = asyncio.create_task(self.runner.run())

    async def up(self, source=SLEEP, setting="one"):
        self.package(source)
        self.begin(setting)
        await self.until(lambda: self.info().state == "running")
        return self.info().pid

    async def end(self):
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task

    async def until(self, condition, timeout_s=20):
        give_up_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up_s, (self.runner.problem, self.exits, self.log)
            assert self.task is not None
            assert not self.task.done(), self.task
            await asyncio.sleep(0.02)

    def info(self):
        return next(info for info in self.runner.list() if info.boot)

    @property
    def log(self):
        return [line.split(" ", 1)[1] for line in self.runner.log_lines(10_000)]

    def said(self):
        return [line.removeprefix("app: ") for line in self.log if line.startswith("app: ")]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
