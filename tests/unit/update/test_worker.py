"""The worker as a process: what it may do, what it costs, and what the supervisor takes from it."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.device import Device
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release
from zentrid.adapters.rights import KEEP_RIGHTS
from zentrid.adapters.worker import WORKER_ARGV, SubprocessLauncher
from zentrid.bundle.patch import PatchHeader
from zentrid.update import protocol
from zentrid.update.errors import DmsRefusedError, DmsUnreachableError, UpdateError, UpdateRefusedError, WorkerDiedError
from zentrid.update.protocol import Answer, InstallSpec, ItemSpec, Message, Progress, Request, SourceSpec, parse_line

PROBE = """
import os, sys
from zentrid.update import worker
finish = worker._Worker.carry_out
def carry_out(self):
    try:
        return finish(self)
    finally:
        status = open('/proc/self/status').read()
        peak = int(status.split('VmHWM:')[1].split()[0])
        print(f'uid={os.getuid()} groups={os.getgroups()} peak_kib={peak}', file=sys.stderr)
        for name in ('aiohttp', 'asyncio', 'pydantic'):
            if name in sys.modules:
                print(f'imported {name}', file=sys.stderr)
worker._Worker.carry_out = carry_out
sys.exit(worker.main())
"""


async def collect(argv: list[str], request: Request, silence_s: float = 20) -> list[Message]:
    run = await SubprocessLauncher(argv).start(request, (), silence_s)
    try:
        return [message async for message in run.messages()]
    finally:
        await run.close()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def request_(device: Device) -> Request:
    return device.manager._link.request("status")


async def test_memory_stays_below_its_limit(
    device: Device, published: Release, caplog: pytest.LogCaptureFixture
) -> None:
    device.launcher = SubprocessLauncher(python(PROBE))
    device.start()
    assert (await device.update()).ok
    peaks = [int(word.split("=")[1]) for word in caplog.text.split() if word.startswith("peak_kib=")]
    assert len(peaks) == 2
    assert max(peaks) < 50 * 1024, peaks
    assert "imported" not in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_it_gives_up_its_rights(device: Device, published: Release, caplog: pytest.LogCaptureFixture) -> None:
    nobody = pwd.getpwnam("nobody")
    folder = Path(shutil.copytree(device.fleet.identity_dir, device.folder / "locked"))
    (folder / "device.key").chmod(0o600)
    folder.chmod(0o700)
    tuf = device.folder / "data" / "tuf"
    tuf.mkdir(parents=True)
    # Where the tests run, the library's files may be root's alone: what is imported late is imported before.
    launcher = SubprocessLauncher(python("import encodings.idna, encodings.ascii, encodings.latin_1\n" + PROBE))
    request = replace(device.manager._link.request("status"), user="nobody", identity_dir=str(folder))
    run = await launcher.start(request, (), 20)
    messages = [message async for message in run.messages()]
    await run.close()
    assert isinstance(messages[-1], Answer)
    assert messages[-1].text("owner") == "maker"
    assert f"uid={nobody.pw_uid} groups=[]" in caplog.text
    assert tuf.stat().st_uid == nobody.pw_uid
    assert (tuf.parent).stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_starts_nothing_that_could_outlive_it() -> None:
    code = (
        "import os, subprocess, threading\n"
        "from zentrid.update.protocol import Request\n"
        "from zentrid.update.worker import drop_privileges\n"
        "drop_privileges(Request('status', '', '', 1, '', '', user='nobody'))\n"
        "for start in (os.fork, lambda: threading.Thread(target=print).start()):\n"
        "    try:\n"
        "        start()\n"
        "    except (OSError, RuntimeError):\n"
        "        print('no')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=20)
    assert done.stdout.split() == [b"no", b"no"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_without_its_user_it_does_nothing(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEEP_RIGHTS)
    with pytest.raises(UpdateError, match=r"cannot give up its rights \(there is no user zentri-gone"):
        await collect([*WORKER_ARGV], replace(request_, user="zentri-gone"))


async def test_one_that_is_silent_is_stopped(request_: Request) -> None:
    with pytest.raises(WorkerDiedError, match="was silent for"):
        await collect(python("import time; time.sleep(60)"), request_, silence_s=0.3)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("pass", "ended without an answer"),
        ("print('hello')", "makes no sense"),
        ("print('[1]')", "makes no sense"),
        ('print(\'{"type":"progress","phase":"downloading","percent":1e999,"received_bytes":0}\')', "makes no sense"),
        ('print(\'{"type":"answer","values":[]}\')', "makes no sense"),
        ('print(\'{"type":"failure"}\')', "makes no sense"),
        ('print(\'{"type":"progress","phase":"x","percent":Infinity,"received_bytes":1}\')', "makes no sense"),
        ('print(\'{"type":"failure","kind":"refused","status":1e999,"sentence":""}\')', "makes no sense"),
        ("print('x' * 3_000_000)", "too long"),
        ("raise SystemExit(3)", "status 3"),
    ],
)
async def test_nonsense_is_not_believed(request_: Request, code: str, problem: str) -> None:
    with pytest.raises(WorkerDiedError, match=problem):
        await collect(python(code), request_)


async def test_one_that_cannot_be_started(request_: Request) -> None:
    with pytest.raises(WorkerDiedError, match="cannot be started"):
        await collect(["/no/such/program"], request_)


HOLDS_ITS_PIPES = """
import os, signal, sys, time
if os.fork() == 0:
    {escape}
    time.sleep(25)
    os._exit(0)
print('{{"type":"answer","values":{{}}}}', flush=True)
"""


@pytest.mark.parametrize("escape", ["pass", "os.setsid()"])
async def test_what_a_worker_leaves_running_is_not_waited_for(request_: Request, escape: str) -> None:
    async with asyncio.timeout(20):
        assert isinstance((await collect(python(HOLDS_ITS_PIPES.format(escape=escape)), request_))[-1], Answer)


async def test_its_complaints_are_logged(request_: Request, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WorkerDiedError):
        await collect(python("import sys; print('ouch\\x1b[0m', file=sys.stderr)"), request_)
    assert "update worker: ouch?[0m" in caplog.text


async def test_a_crash_inside_is_an_answer_too(
    device: Device, request_: Request, caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(request_, op="install")
    with pytest.raises(UpdateRefusedError, match="was not told what to install"):
        await collect([sys.executable, "-m", "zentrid.update.worker"], broken)
    with pytest.raises(UpdateError):
        await collect([sys.executable, "-m", "zentrid.update.worker"], replace(request_, limits={"nonsense": 1.0}))
    assert "TypeError" in caplog.text


async def test_it_ends_with_its_supervisor(device: Device, doorman: Doorman) -> None:
    """Nobody reads what it says any more: saying something fails, and that is the end."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    doorman.habits.before_check = lambda: (loop.call_soon_threadsafe(asked.set), doorman.hold.wait(20))
    body = {"version": "1.0.0", "want": None, "force": False, "safemode": False}
    run = await SubprocessLauncher().start(device.manager._link.request("check", body=body), (), 20)
    async with asyncio.timeout(20):
        await asked.wait()
        run._process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        doorman.hold.set()
        assert await run._process.wait() == 1
    await run.close()


def test_requests_go_through_unchanged() -> None:
    item = ItemSpec("rootfs", "00" * 32, 5, 7, with_tree=True, sources=(SourceSpec(8, 3, 3), SourceSpec(9)))
    request = Request(
        "install", "/identity", "host", 1, "uuid", "1.0.0", reports=({"id": "x"},),
        install=InstallSpec("1.1.0", "b", (item,)), limits={"total_s": 1.0},
    )  # fmt: skip
    assert protocol.parse_request(request.to_bytes()) == request


@pytest.mark.parametrize(
    "error",
    [DmsRefusedError(403, "device not claimed"), DmsUnreachableError("gone"), UpdateRefusedError("expired", "too old")],
)
def test_failures_go_through_unchanged(error: UpdateError) -> None:
    with pytest.raises(type(error)) as caught:
        parse_line(protocol.failure_line(error))
    assert (str(caught.value), caught.value.reason, caught.value.result) == (str(error), error.reason, error.result)


def test_progress_is_bounded() -> None:
    assert parse_line(protocol.progress_line(Progress("down\nloading", 700, -5))) == Progress("down?loading", 100, 0)


async def test_a_manifest_that_is_no_text_is_refused(device: Device) -> None:
    device.launcher = SubprocessLauncher(python('print(\'{"type":"answer","values":{"manifest":"\\\\ud800"}}\')'))
    device.start()
    last = await device.update()
    assert (last.ok, last.reason) == (False, "bad_manifest"), last.message


def test_it_says_something_whenever_something_arrives(
    device: Device, doorman: Doorman, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header of a large release takes minutes on a slow connection: the supervisor must not take that for the end."""
    from zentrid.update import worker

    monkeypatch.setattr(worker, "PROGRESS_INTERVAL_S", 0.0)
    received: list[int] = []

    def emit(line: bytes) -> None:
        message = parse_line(line)
        if isinstance(message, Progress):
            received.append(message.received_bytes)

    root = published.tree.root.hex()
    header = PatchHeader.parse(published.streams[root])
    target = device.folder / "target"
    target.write_bytes(bytes(len(published.rootfs)))
    fd = os.open(target, os.O_RDWR)
    spec = InstallSpec("1.1.0", "b", (ItemSpec("rootfs", root, len(published.rootfs), fd, False),), verify_fit=False)
    request = device.manager._link.request("install", install=spec)
    assert worker.run(replace(request, limits={**request.limits, "max_rate_bytes_s": 10_000_000.0}), emit) == 0
    os.close(fd)
    before_the_first_frame = [size for size in received if 0 < size <= header.leaf_offset + header.leaf_bytes]
    assert len(before_the_first_frame) >= 2


async def test_progress_comes_at_most_five_times_a_second(device: Device, fleet: Fleet, published: Release) -> None:
    from zentrid.update import worker

    lines: list[bytes] = []
    made = worker._Worker(device.manager._link.request("status"), worker.Secrets(None, b""), lines.append)
    for percent in range(1000):
        made._tell("downloading", percent // 10)
    made._tell("verifying", 90)
    assert 2 <= len(lines) <= 4
