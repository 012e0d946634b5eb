"""A whole device on ordinary files: disk, boot script (its decisions in short), update manager. Power cuts included."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.doorman import Doorman
from tests.support.fleet import BOARD, PRODUCT, UUID, Fleet, Release, bootargs, digest
from zentrid.adapters.bootstate import DiskBootStateStore
from zentrid.adapters.slots import DiskSlots
from zentrid.bundle.tree import HashTree
from zentrid.core import names
from zentrid.core.bootstate import BootState, BootStateWriteError
from zentrid.core.fit import read_configuration
from zentrid.core.names import SlotName
from zentrid.core.version import Version, parse_version
from zentrid.ports import Identity, UpdateOptions, UpdateProgress
from zentrid.ports import Release as ReleaseFacts
from zentrid.update import worker
from zentrid.update.errors import WorkerDiedError
from zentrid.update.link import Parts, Paths
from zentrid.update.manager import UpdateManager
from zentrid.update.outbox import Outbox
from zentrid.update.protocol import Answer, Message, Request, parse_line

KERNEL_BYTES = 512 * 1024
ROOTFS_BYTES = 4 * 1024 * 1024
BUILT = "2026-01-01T00:00:00Z"
IMPATIENT = {"connect_s": 5.0, "read_s": 2.0, "rate_window_s": 0.3, "min_rate_bytes_s": 2000.0, "total_s": 30.0}
QUICK = {"most": 3, "first_pause_s": 0.01, "longest_pause_s": 0.02}


class PowerCutError(BaseException):
    """The power goes at this very step."""


class Fuse:
    """Counts durable steps and cuts the power at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.steps: list[str] = []
        self.at = at

    def __call__(self, step: str) -> None:
        self.steps.append(step)
        if self.at is not None and len(self.steps) > self.at:
            raise PowerCutError(step)


class FusedStore(DiskBootStateStore):
    """The real store; each write is a durable step, and writing may be broken."""

    def __init__(self, path: Path, fuse: Fuse) -> None:
        super().__init__(path)
        self.fuse = fuse
        self.broken_from: int | None = None
        self.writes = 0

    def _put(self, number: int, copy: bytes) -> None:
        self.fuse("write boot state")
        self.writes += 1
        if self.broken_from is not None and self.writes >= self.broken_from:
            raise BootStateWriteError("Input/output error")
        super()._put(number, copy)
        self.fuse("boot state written")


class ThreadRun:
    """The worker's own code in a thread: quicker than a process, for tests that need neither rights nor killing."""

    def __init__(self, request: Request) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(line: bytes) -> None:
            loop.call_soon_threadsafe(self._queue.put_nowait, line)

        def work() -> None:
            with suppress(RuntimeError):
                worker.run(request, emit)
                emit(b"")

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    async def messages(self) -> AsyncIterator[Message]:
        while line := await self._queue.get():
            message = parse_line(line)
            yield message
            if isinstance(message, Answer):
                return
        raise WorkerDiedError("the update worker ended without an answer")

    def stop(self) -> None:
        raise AssertionError("a thread cannot be stopped; use a process in this test")

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.join)


class ThreadLauncher:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def start(self, request: Request, fds: Sequence[int], silence_s: float) -> ThreadRun:
        for fd in fds:
            os.fstat(fd)
        self.requests.append(request)
        return ThreadRun(request)


class Device:
    """Files that survive power cuts, and the software that runs now."""

    def __init__(self, folder: Path, fleet: Fleet, doorman: Doorman) -> None:
        self.folder = folder
        self.fleet = fleet
        self.doorman = doorman
        self.fuse = Fuse()
        self.known: dict[str, Release] = {}
        self.running: SlotName = "a"
        self.launcher: Any = ThreadLauncher()
        self.parts_changes: dict[str, Any] = {}
        self._make_disk()
        self.store = FusedStore(self.part("bootstate"), self.fuse)
        self.manager: UpdateManager

    def part(self, label: str) -> Path:
        return self.folder / "dev" / label

    def _make_disk(self) -> None:
        sizes = {"bootstate": names.MIB, "kernel": KERNEL_BYTES, "rootfs": ROOTFS_BYTES}
        for entry in names.PARTITIONS:
            size = sizes.get(entry.name.split("_")[0])
            if size is None:
                continue
            path = self.part(entry.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(size)
            uevent = self.folder / "sys" / entry.name / "uevent"
            uevent.parent.mkdir(parents=True)
            uevent.write_text(
                f"DEVNAME={entry.name}\nDEVTYPE=partition\nPARTNAME={entry.name}\nPARTUUID={entry.partuuid}\n"
            )

    def flash(self, slot: SlotName, release: Release) -> None:
        """Write a release into a slot, as manufacture does."""
        self.known[release.version] = release
        for label, data in (
            (f"kernel_{slot}", release.kernel),
            (f"rootfs_{slot}", release.rootfs + release.tree.levels_bytes()),
        ):
            with self.part(label).open("r+b") as file:
                file.write(data)

    def boot(self) -> UpdateManager:
        """Do what the boot script does, and start the software of the slot that it chose."""
        self.fuse.at, self.fuse.steps = None, []
        try:
            state = self.store.read()
        except Exception:
            state = BootState()
        self.running, state = self._choose(state)
        self.store.write(replace(state, running=True))
        return self.start()

    def start(self) -> UpdateManager:
        """Start the supervisor's part again, without a boot."""
        verity = self.configuration(self.running)
        arguments = bootargs(self.running, verity.root_hash, verity.data_blocks) if verity else ""
        cmdline = self.folder / "cmdline"
        cmdline.write_text(f"{arguments} zentri.slot={self.running} zentri.warm=1\n")
        slots = DiskSlots(self.store, self.folder / "sys", self.folder / "dev", cmdline)
        version = slots.configuration(self.running)
        facts = ReleaseFacts(
            PRODUCT, str(version.version if version else "0.0.0"), BUILT, BOARD, "1.0.0", development=True
        )
        parts = Parts(
            release=facts,
            identity=Identity(UUID, "52:54:00:12:34:56", "127.0.0.1", self.doorman.port),
            boot_state=self.store,
            slots=slots,
            launcher=self.launcher,
            server=lambda: ("127.0.0.1", self.doorman.port),
            paths=Paths(self.fleet.identity_dir, self.folder / "data"),
            limits=IMPATIENT,
            retries=QUICK,
            hook=self.fuse,
        )
        self.manager = UpdateManager(replace(parts, **self.parts_changes))
        return self.manager

    def _choose(self, state: BootState) -> tuple[SlotName, BootState]:
        if state.safemode or state.faults >= names.MAX_FAULTS:
            return "r", state
        for slot in state.order:
            if state.left(slot):
                state = with_left(state, slot, state.left(slot) - (0 if state.good(slot) else 1))
                if self.is_whole(slot):
                    return slot, state
                state = with_left(state, slot, 0)
        return "r", state

    def configuration(self, slot: SlotName) -> Any:
        data = self.part(f"kernel_{slot}").read_bytes()
        found = read_configuration(data, slot)
        return found.verity if found else None

    def is_whole(self, slot: SlotName) -> bool:
        """What the signature check and dm-verity together come to."""
        verity = self.configuration(slot)
        if verity is None:
            return False
        data = self.part(f"rootfs_{slot}").read_bytes()
        with self.part(f"rootfs_{slot}").open("rb") as file:
            tree = HashTree.from_leaves([digest_bytes(file.read(4096)) for _ in range(verity.data_blocks)])
        levels = tree.levels_bytes()
        start = verity.data_blocks * 4096
        return tree.root.hex() == verity.root_hash and data[start : start + len(levels)] == levels

    def slot_holds(self, slot: SlotName, release: Release) -> bool:
        """Every byte of the release is in the slot."""
        kernel = self.part(f"kernel_{slot}").read_bytes()[: len(release.kernel)]
        return (
            kernel == release.kernel
            and self.is_whole(slot)
            and self.configuration(slot).root_hash == release.tree.root.hex()
        )

    def snapshot(self) -> dict[str, str]:
        """What must not change when an update is refused: every partition, apart from the boot state."""
        return {
            path.name: digest(path.read_bytes())
            for path in sorted(self.part("x").parent.iterdir())
            if path.name != "bootstate"
        }

    async def update(self, **options: Any) -> UpdateProgress:
        """Run `ota` to its end; return its last word."""
        return (await self.news(**options))[-1]

    async def news(self, **options: Any) -> list[UpdateProgress]:
        news = [item async for item in self.manager.run(UpdateOptions(**options))]
        assert [item.done for item in news] == [False] * (len(news) - 1) + [True]
        return news

    @property
    def version(self) -> str:
        found = read_configuration(self.part(f"kernel_{self.running}").read_bytes(), self.running)
        return str(found.version) if found else ""


def digest_bytes(block: bytes) -> bytes:
    return bytes.fromhex(digest(block))


def with_left(state: BootState, slot: SlotName, left: int) -> BootState:
    return replace(state, a_left=left) if slot == "a" else replace(state, b_left=left)


def factory_state() -> BootState:
    return BootState(a_good=True, floor=Version(1, 0, 0))


def with_floor(version: str) -> Callable[[BootState], BootState]:
    return lambda state: replace(state, floor=parse_version(version))


def now() -> datetime:
    return datetime.now(UTC)


async def waiting(device: Device) -> list[dict[str, Any]]:
    """The reports in the outbox, oldest first."""
    return await asyncio.to_thread(Outbox(device.folder / "data" / "outbox").reports)
