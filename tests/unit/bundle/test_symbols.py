"""Publishing symbol files: only those that are missing, over a real connection to the small server of `test_publish`."""

import json
import sys

import pytest

from scripts.bundle_tool import __main__ as cli
from scripts.bundle_tool import symbols
from scripts.bundle_tool.publish import PublishError
from scripts.bundle_tool.symbols import beside, find_symbols, publish_symbols
from tests.unit.bundle.test_publish import TOKEN, server, signed

__all__ = ["server", "signed"]

IDS = ("ab" * 20, "cd" * 20, "ef" * 20)


def make(folder, *ids, data=b"\x7fELF"):
    for build_id in ids:
        path = folder / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + build_id.encode())
    return folder


def path_of(build_id):
    return f"/api/v1/symbols/{build_id}"


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["bundle", "publish", *map(str, arguments), "--token", TOKEN, "--json"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, json.loads(capsys.readouterr().out)


def test_only_the_missing_ones_are_sent(tmp_path, server):
    folder, told = make(tmp_path, *IDS), []
    server.symbols[path_of(IDS[1])] = b"was here"
    done = publish_symbols(folder, server.url, TOKEN, progress=lambda *now: told.append(now))
    assert (done.sent, done.there, done.too_large) == (2, 1, ())
    assert server.symbols == {
        path_of(IDS[0]): b"\x7fELF" + IDS[0].encode(),
        path_of(IDS[1]): b"was here",
        path_of(IDS[2]): b"\x7fELF" + IDS[2].encode(),
    }
    assert told[-1] == (3 * 44, 3 * 44)
    assert publish_symbols(folder, server.url, TOKEN).sent == 0


def test_other_files_are_passed_over(tmp_path):
    make(tmp_path, IDS[0])
    for name in ("README", "ab/x.txt", "ab/XYZ.debug", "zz/zz.debug"):
        (tmp_path / ".build-id" / name).parent.mkdir(exist_ok=True)
        (tmp_path / ".build-id" / name).write_bytes(b"")
    (tmp_path / ".build-id" / "ab" / f"{'0' * 38}.debug").mkdir()
    assert list(find_symbols(tmp_path)) == [IDS[0]]


def test_one_that_is_too_large_is_left_out_and_told(tmp_path, server, monkeypatch):
    monkeypatch.setattr(symbols, "MAX_FILE_BYTES", 100)
    make(tmp_path, IDS[0])
    make(tmp_path, IDS[1], data=bytes(200))
    done = publish_symbols(tmp_path, server.url, TOKEN)
    assert (done.sent, [path.name for path in done.too_large]) == (1, [f"{IDS[1][2:]}.debug"])
    assert list(server.symbols) == [path_of(IDS[0])]


def test_a_refusal_is_passed_on(tmp_path, server):
    make(tmp_path, IDS[0])
    server.fail_symbols = (422, {"message": "has another build-id"})
    with pytest.raises(PublishError, match=r"symbol file .*\.debug with status 422: has another build-id"):
        publish_symbols(tmp_path, server.url, TOKEN)
    with pytest.raises(PublishError, match="401"):
        publish_symbols(tmp_path, server.url, "zt_wrong")


def test_a_folder_without_symbols_is_a_mistake(tmp_path, server):
    with pytest.raises(PublishError, match=r"has no folder \.build-id"):
        publish_symbols(tmp_path, server.url, TOKEN)


def test_far_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(symbols, "MAX_FILES", 2)
    with pytest.raises(PublishError, match="more than 2"):
        find_symbols(make(tmp_path, *IDS))


def test_the_folder_beside_the_bundle_is_found(tmp_path, server, signed, monkeypatch, capsys):
    assert beside(signed) is None
    code, facts = run(monkeypatch, capsys, signed, "--server", server.url)
    assert (code, facts["symbols"]) == (0, None)
    make(tmp_path / "symbols", *IDS)
    code, facts = run(monkeypatch, capsys, signed, "--server", server.url, "--no-symbols")
    assert (code, facts["symbols"], server.symbols) == (0, None, {})
    code, facts = run(monkeypatch, capsys, signed, "--server", server.url)
    assert (code, facts["symbols"]) == (0, {"sent": 3, "there": 0, "too_large": []})


def test_a_folder_may_be_named(tmp_path, server, signed, monkeypatch, capsys):
    make(tmp_path / "symbols", IDS[0])
    make(tmp_path / "elsewhere", IDS[1])
    code, facts = run(monkeypatch, capsys, signed, "--server", server.url, "--symbols", tmp_path / "elsewhere")
    assert (code, facts["symbols"]["sent"], list(server.symbols)) == (0, 1, [path_of(IDS[1])])
    code, facts = run(monkeypatch, capsys, signed, "--server", server.url, "--symbols", tmp_path / "nowhere")
    assert (code, facts["reason"]) == (1, "publish_failed")
    server.requests.clear()
    run(monkeypatch, capsys, signed, "--server", server.url, "--symbols", tmp_path / "nowhere")
    assert server.requests == [], "a wrong folder is noticed before anything is sent"
