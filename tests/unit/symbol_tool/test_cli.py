"""`scripts/symbols`: what it prints, and what it says when something is missing."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.image.symbols import collect
from tests.support.cores import build_sample, needs_qemu_user
from zentrid.debug.symbols import SymbolFile

pytestmark = needs_qemu_user

TOOL = Path(__file__).resolve().parents[3] / "scripts/symbols"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The symbol files of a tree that holds the sample and a stripped library."""
    top = tmp_path_factory.mktemp("symbols")
    built = build_sample(top / "built")
    root = top / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(built.program, root / "bin/sample-arm")
    (top / "out").mkdir()
    collect(root, top / "built/symbols", top / "out")
    return top / "out"


@pytest.fixture
def symbols(folder):
    """Give a function that runs the tool; returns exit status, output, errors."""

    def symbols(*words, where=folder, given=""):
        command = [TOOL, *words, *(["--symbols", where] if where else [])]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    return symbols


@pytest.fixture(scope="module")
def known(folder):
    """Build-id of the sample, and an address in crash_now."""
    [path] = folder.glob(".build-id/*/*.debug")
    with path.open("rb") as stream:
        file = SymbolFile(stream)
        places = {a: p.function for a in range(0, 0x2000, 4) if (p := file.resolve(a))}
    return file.build_id, next(address for address, name in places.items() if name == "crash_now")


def test_list(symbols, known):
    assert symbols("list")[:2] == (0, f"{known[0]}  lines  /bin/sample-arm\n")
    files = json.loads(symbols("list", "--json")[1])["files"]
    assert files == [{"build_id": known[0], "file": "/bin/sample-arm", "lines": True}]


def test_resolve(symbols, known):
    status, said, _ = symbols("resolve", known[0].upper(), f"{known[1]:x}", f"0x{known[1] + 4:x}", "0")
    lines = said.splitlines()
    assert status == 0
    assert lines[0].startswith(f"0x{known[1]:x} crash_now+0x0 (sample-arm.c:")
    assert lines[1].startswith(f"0x{known[1] + 4:x} crash_now+0x4 (sample-arm.c:")
    assert lines[2] == "0x0 is in no function that has a name"
    places = json.loads(symbols("resolve", known[0], hex(known[1]), "--json")[1])["places"]
    assert places[0]["place"]["function"] == "crash_now"


@pytest.mark.parametrize("report", [False, True])
def test_backtrace_of_a_crash_file_and_of_a_fault_report(report, symbols, known, tmp_path):
    frames = [
        {"module": "/bin/sample-arm", "build_id": known[0], "address": known[1]},
        {"module": "/lib/other.so", "build_id": "cd" * 20, "address": 16},
        {"module": "[no file]", "build_id": "", "address": 0},
    ]
    crash = {"signal": 11, "executable": "/bin/sample-arm", "frames": frames}
    values = {"event": "fault", "fault": {"cause": "app", "frames": frames}} if report else crash
    (tmp_path / "crash.json").write_text(json.dumps(values))
    for words, given in (([str(tmp_path / "crash.json")], ""), (["-"], json.dumps(values))):
        status, said, _ = symbols("backtrace", *words, given=given)
        lines = said.splitlines()
        assert status == 0
        assert lines[0].startswith("#0 crash_now+0x0 (sample-arm.c:")
        assert lines[0].endswith(f" in sample-arm [build-id {known[0][:8]}]")
        assert lines[1] == "#1 0x10 in other.so [build-id cdcdcdcd] (no symbol file)"
        assert lines[2] == "#2 0x0 in [no file] [no build-id]"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["resolve", "ab" * 20, "0x10"], "has no symbol file for build-id"),
        (["resolve", "xyz", "0x10"], "is no build-id"),
        (["resolve", "ab" * 20, "ten"], "is no address"),
        (["resolve", "ab" * 20, "1" * 17], "is no address"),
        (["backtrace", "/no/such/file"], "check the path"),
        (["backtrace", "-"], "neither a fault report nor a crash file"),
    ],
)
def test_errors_are_one_sentence(words, sentence, symbols):
    status, said, problem = symbols(*words)
    assert (status, said) == (1, "")
    assert sentence in problem
    assert len(problem.splitlines()) == 1
    told = json.loads(symbols(*words, "--json")[1])
    assert told["result"] == "fail"


@pytest.mark.parametrize("given", ["[]", "1", '{"frames": 1}', '{"frames": [{}]}', '{"fault": null}', "[" * 10_000])
def test_what_is_no_report_is_refused(given, symbols):
    status, _, problem = symbols("backtrace", "-", given=given)
    assert status == 1
    assert "neither a fault report nor a crash file" in problem


def test_a_folder_without_symbol_files_is_told(symbols, tmp_path):
    status, _, problem = symbols("list", where=tmp_path)
    assert status == 1
    assert "make image" in problem


def test_damaged_and_misplaced_files_are_told(symbols, folder, known, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    [path] = (tmp_path / "other").glob(".build-id/*/*.debug")
    wrong = tmp_path / "other/.build-id/ab" / f"{'cd' * 19}.debug"
    wrong.parent.mkdir()
    shutil.copy(path, wrong)
    assert "belongs to build-id" in symbols("resolve", "ab" + "cd" * 19, "0", where=tmp_path / "other")[2]
    path.write_bytes(b"\x7fELF")
    assert "is damaged" in symbols("resolve", known[0], "0", where=tmp_path / "other")[2]


def test_help(symbols):
    for words in ([], ["resolve"], ["backtrace"], ["list"]):
        status, said, _ = symbols(*words, "--help", where=None)
        assert status == 0
        assert "Usage" in said
