"""Symbol files: checked, each account's own; they make faults readable, also later; hostile ones harm nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dms_server.faults import child, reader
from tests.server.conftest import StartDms
from tests.server.elves import Program, needs_compiler, program
from tests.server.helpers import Browser, Device, Dms, Person, ask
from tests.server.test_faults import but, report, shown

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return program(tmp_path_factory.mktemp("elf"))


async def put(person: Person, build_id: str, data: bytes) -> Any:
    return await person.api("PUT", f"symbols/{build_id}", data=data)


async def crash(device: Device, *frames: dict[str, object]) -> None:
    assert (await report(device, fault=but(frames=list(frames)))).status == 200


async def test_a_symbol_file_is_kept_once(dms: Dms, sample: Program) -> None:
    owner = await dms.owner()
    assert (await owner.api("HEAD", f"symbols/{sample.build_id}")).status == 404
    first = await put(owner, sample.build_id, sample.data)
    assert (first.status, first.body["size"]) == (201, len(sample.data))
    assert (await put(owner, sample.build_id.upper(), sample.data)).status == 200
    assert (await owner.api("HEAD", f"symbols/{sample.build_id}")).status == 200
    listed = (await owner.api("GET", "symbols")).body
    assert (listed["total"], [row["build_id"] for row in listed["symbols"]]) == (1, [sample.build_id])
    kept = [path for path in (dms.settings.data / "symbols").rglob("*") if path.is_file()]
    assert [path.stem for path in kept] == [first.body["sha256"]]
    assert list((dms.settings.data / "uploads").iterdir()) == []


async def test_symbols_make_backtraces_readable_also_later(dms: Dms, sample: Program) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    await crash(device, sample.frame(8), sample.frame(0, build_id="cd" * 20), sample.frame(0, address=1))
    [fault] = await shown(owner, device)
    assert fault["backtrace"][0].endswith(f"in sample-arm (the symbol file {sample.build_id} is missing)")
    await put(owner, sample.build_id, sample.data)
    [fault] = await shown(owner, device)
    assert fault["backtrace"] == [
        f"#0 crash_now+0x8 (sample.c:5) in sample-arm [build-id {sample.build_id[:8]}]",
        f"#1 {sample.crash:#x} in sample-arm (the symbol file {'cd' * 20} is missing)",
        "#2 0x1 in sample-arm (its symbol file names nothing there)",
    ]


async def test_a_backtrace_is_made_once(dms: Dms, sample: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    await put(owner, sample.build_id, sample.data)
    await crash(device, sample.frame())
    before = await shown(owner, device)

    def no(*_: object) -> bytes:
        raise AssertionError("read again")

    monkeypatch.setattr(reader, "_run", no)
    assert await shown(owner, device) == before
    assert "crash_now" in before[0]["backtrace"][0]


async def test_better_symbols_take_the_place_of_the_first(dms: Dms, tmp_path: Path) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    forced = "0x" + "5a" * 20
    bare, full = program(tmp_path / "bare", forced, "-g0"), program(tmp_path / "full", forced)
    await crash(device, bare.frame())
    await put(owner, bare.build_id, bare.data)
    assert (await shown(owner, device))[0]["backtrace"] == ["#0 crash_now+0x0 in sample-arm [build-id 5a5a5a5a]"]
    assert (await put(owner, full.build_id, full.data)).status == 201
    [line] = (await shown(owner, device))[0]["backtrace"]
    assert line.startswith("#0 crash_now+0x0 (sample.c:")
    kept = [path for path in (dms.settings.data / "symbols").rglob("*") if path.is_file()]
    assert len(kept) == 1, "the file that nobody needs any more is gone"


async def test_symbols_are_each_accounts_own(dms: Dms, sample: Program) -> None:
    owner = await dms.owner()
    eve = await dms.person("eve")
    device = await dms.ready_device()
    await crash(device, sample.frame())
    assert (await put(eve, sample.build_id, sample.data)).status == 201
    assert "missing" in (await shown(owner, device))[0]["backtrace"][0], "a stranger's symbols are not believed"
    assert (await owner.api("HEAD", f"symbols/{sample.build_id}")).status == 404
    assert (await owner.api("DELETE", f"symbols/{sample.build_id}")).status == 404
    await put(owner, sample.build_id, sample.data)
    assert "crash_now" in (await shown(owner, device))[0]["backtrace"][0]
    await dms.person("zoe")
    assert (await owner.api("POST", f"devices/{device.uuid}/transfer", json={"user": "zoe"})).status == 200
    zoe = Person("zoe", 0, (await _token(dms, "zoe")), dms.web_url, dms.session)
    assert "missing" in (await shown(zoe, device))[0]["backtrace"][0], (
        "names of functions stay with whoever has the symbols"
    )


async def _token(dms: Dms, name: str) -> str:
    principal = await dms.core.accounts.check_password(name, "correct horse battery", "test")
    return (await dms.core.accounts.new_api_token(principal.id, "t", ("read",)))[1]


async def test_deleting_one_leaves_the_other_accounts_file(dms: Dms, sample: Program) -> None:
    ann, eve = await dms.person("ann"), await dms.person("eve")
    for person in (ann, eve):
        await put(person, sample.build_id, sample.data)
    assert (await ann.api("DELETE", f"symbols/{sample.build_id}")).status == 200
    assert (await ann.api("HEAD", f"symbols/{sample.build_id}")).status == 404
    kept = dms.core.symbols.path((await eve.api("GET", f"symbols/{sample.build_id}")).body["sha256"])
    assert kept.is_file()
    await eve.api("DELETE", f"symbols/{sample.build_id}")
    assert not kept.exists()


async def test_another_build_id_is_refused(dms: Dms, sample: Program, tmp_path: Path) -> None:
    owner = await dms.owner()
    refused = await put(owner, "ab" * 20, sample.data)
    assert refused.status == 422
    assert sample.build_id in refused.body["message"]
    none = await asyncio.to_thread(program, tmp_path / "none", "0x" + "00" * 20)
    assert (await put(owner, sample.build_id, none.data)).status == 422
    assert (await owner.api("GET", "symbols")).body["total"] == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"not an ELF file at all",
        lambda data: data[:100],
        lambda data: data[:40] + b"\xff" * 8 + data[48:],
        lambda data: b"\x7fELF" + bytes(5000),
        lambda data: data[: len(data) // 2],
    ],
)
async def test_what_is_no_symbol_file_is_refused(dms: Dms, sample: Program, spoil: Any) -> None:
    owner = await dms.owner()
    refused = await put(owner, sample.build_id, spoil(sample.data))
    assert refused.status == 422, refused.body
    assert (await owner.api("GET", "symbols")).body["total"] == 0
    assert list((dms.settings.data / "uploads").iterdir()) == []


@pytest.mark.parametrize("name", ["abc", "x" * 40, "a" * 65, "..%2f..%2fetc"])
async def test_what_is_no_build_id_is_no_address(dms: Dms, sample: Program, name: str) -> None:
    owner = await dms.owner()
    assert (await put(owner, name, sample.data)).status == 404


async def test_uploads_are_bounded(start_dms: StartDms, sample: Program) -> None:
    size = len(sample.data)
    dms = await start_dms(symbols_max_bytes=size, symbols_account_max_bytes=size)
    owner = await dms.owner()

    async def endless() -> Any:
        for _ in range(100):
            yield bytes(65536)

    assert (await put(owner, sample.build_id, sample.data + b"x")).status == 413
    assert (await owner.api("PUT", f"symbols/{sample.build_id}", data=endless())).status == 413
    assert (await put(owner, sample.build_id, b"")).status == 400
    assert (await put(owner, sample.build_id, sample.data)).status == 201
    other = await asyncio.to_thread(program, dms.settings.data.parent / "other", "0x" + "77" * 20)
    refused = await put(owner, other.build_id, other.data)
    assert refused.status in (409, 413)
    assert (await owner.api("GET", "symbols")).body["total"] == 1


async def test_the_accounts_room_is_bounded(start_dms: StartDms, sample: Program, tmp_path: Path) -> None:
    dms = await start_dms(symbols_account_max_bytes=len(sample.data) + 100)
    owner = await dms.owner()
    assert (await put(owner, sample.build_id, sample.data)).status == 201
    other = await asyncio.to_thread(program, tmp_path / "other", "0x" + "77" * 20)
    refused = await put(owner, other.build_id, other.data)
    assert refused.status == 409
    assert "symbols_account_max_bytes" in refused.body["message"]


async def test_rights_are_needed(dms: Dms, sample: Program) -> None:
    await dms.owner()
    reads = await dms.person("reader", scopes=("read",))
    assert (await put(reads, sample.build_id, sample.data)).status == 403
    assert (await reads.api("HEAD", f"symbols/{sample.build_id}")).status == 404
    url = f"{dms.web_url}/api/v1/symbols/{sample.build_id}"
    for method in ("GET", "HEAD"):
        assert (await ask(dms.session, method, url)).status == 401
    assert (await ask(dms.session, "PUT", url, data=sample.data)).status in (401, 403)
    assert (await ask(dms.session, "GET", f"{dms.web_url}/api/v1/symbols")).status == 401


# --- the process that reads them ------------------------------------------------------------------------------------------
HOSTILE = {
    "memory": "import sys; blocks = []\nwhile True: blocks.append(bytearray(1 << 24))",
    "time": "while True: pass",
    "output": "import sys\nwhile True: sys.stdout.write('x' * 65536)",
    "death": "import os; os.kill(os.getpid(), 9)",
    "nonsense": "print('[1, 2]')",
    "lines": 'print(\'{"build_id": "00", "lines": [1, 2, 3, 4]}\')',
    "text": 'print(\'{"build_id": 7, "lines": [null]}\')',
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_a_reader_that_is_taken_over_is_bounded(
    dms: Dms, sample: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whatever a file makes the child do: the server goes on, and says that the file cannot be used."""
    (tmp_path / "dms_server" / "faults").mkdir(parents=True)
    for folder in ("dms_server", "dms_server/faults"):
        (tmp_path / folder / "__init__.py").touch()
    # Filling memory takes time as well: on a busy machine a second could end it before the memory does.
    cpu_s = 1 if how == "time" else 20
    limits = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({child.MEMORY_MAX_BYTES}, {child.MEMORY_MAX_BYTES}))\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, ({cpu_s}, {cpu_s}))\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({child.OUTPUT_MAX_BYTES}, {child.OUTPUT_MAX_BYTES}))\n"
    )
    (tmp_path / "dms_server" / "faults" / "child.py").write_text(limits + HOSTILE[how])
    owner = await dms.owner()
    device = await dms.ready_device()
    await put(owner, sample.build_id, sample.data)
    await crash(device, sample.frame())
    monkeypatch.setattr(reader, "TOP", tmp_path)
    started = time.monotonic()
    [fault] = await shown(owner, device)
    passing = how in ("time", "death")
    said = "its symbol file is being read" if passing else "its symbol file cannot be used: reading it"
    assert said in fault["backtrace"][0]
    assert time.monotonic() - started < 30
    monkeypatch.undo()
    [fault] = await shown(owner, device)
    assert ("crash_now" in fault["backtrace"][0]) == passing, "what was a matter of the moment is tried again"
    assert (await owner.api("GET", "symbols")).body["total"] == 1


SLOW = """
import json, sys, time
frames = json.loads(sys.stdin.read())
time.sleep(3)
print(json.dumps({"build_id": "00", "lines": ["slow_function" for _ in frames]}))
"""


async def test_a_slow_symbol_file_does_not_hold_up_the_page(
    dms: Dms, sample: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dms_server" / "faults").mkdir(parents=True)
    for folder in ("dms_server", "dms_server/faults"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "dms_server" / "faults" / "child.py").write_text(SLOW)
    owner = await dms.owner()
    device = await dms.ready_device()
    await put(owner, sample.build_id, sample.data)
    await crash(device, sample.frame())
    monkeypatch.setattr(reader, "TOP", tmp_path)
    monkeypatch.setattr("dms_server.pages.devices.PATIENCE_S", 0.2)
    async with Browser(dms) as browser:
        await browser.sign_in()
        for _ in range(2):  # the second one does not wait for the first one's reading
            started = time.monotonic()
            page = (await browser.get(f"/devices/{device.uuid}")).body
            assert time.monotonic() - started < 2.5
            assert "its symbol file is being read" in page
        deadline = time.monotonic() + 30
        while "slow_function" not in page:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
            page = (await browser.get(f"/devices/{device.uuid}")).body


async def test_one_that_sleeps_is_ended(sample: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "WALL_MAX_S", 0.01)
    with pytest.raises(reader.UnreadableError, match="takes too long"):
        await reader.Reader().read(sample.path)


def test_the_child_limits_itself_before_it_reads() -> None:
    code = (
        "from dms_server.faults import child; import resource as r; child.limit_resources();"
        "print([r.getrlimit(x) for x in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_FSIZE)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=reader.TOP, check=True, capture_output=True, text=True)
    limits = [child.MEMORY_MAX_BYTES, child.CPU_MAX_S, child.OUTPUT_MAX_BYTES]
    assert done.stdout.strip() == str([(most, most) for most in limits])


async def test_names_from_a_file_are_one_plain_line(sample: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = b'{"build_id": "00", "lines": ["evil\\u001b[2J\\n#1 fake' + b"x" * 5000 + b'"]}'
    monkeypatch.setattr(reader, "_run", lambda *_: answer)
    [line] = (await reader.Reader().read(sample.path, [sample.frame()])).lines
    assert line is not None
    assert line.startswith("evil?[2J?#1 fake")
    assert len(line) == child.LINE_MAX_CHARS
