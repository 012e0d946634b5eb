"""Compiled code of dataclasses: found by its text, never needed, never believed from another Python."""

import builtins
import dataclasses
import importlib
import marshal
import sys
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from scripts.image.dataclasscode import collect, modules
from zentrid.dataclasscode import decode, encode, looking_up, replace_exec, use

PACKAGE = {
    "__init__.py": "",
    "__main__.py": "raise SystemExit('a program was started')",
    "core/__init__.py": "",
    "core/point.py": "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Point:\n    x: int\n    y: int = 0\n",
    "gone.py": "import no_such_module",
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = vars(dataclasses).get("exec")
    yield
    vars(dataclasses).pop("exec", None)
    if before is not None:
        vars(dataclasses)["exec"] = before


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "zz_sample"
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("zz_sample")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def test_modules_are_all_but_programs(package: Path):
    assert modules(package) == ["zz_sample", "zz_sample.core", "zz_sample.core.point", "zz_sample.gone"]


def test_what_can_be_imported_is_collected_and_the_rest_is_named(package: Path):
    table, failed = collect(modules(package))
    assert table
    assert failed == ["zz_sample.gone: No module named 'no_such_module'"]
    assert vars(dataclasses)["exec"] is builtins.exec, "collecting has an end"


def test_what_the_build_collects_is_not_compiled_again(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table, _ = collect(["zz_sample.core.point"])
    file = tmp_path / "dataclasses.code"
    file.write_bytes(encode(table))
    use(file)
    executed: list[object] = []
    plain = builtins.exec

    def spy(source, *scopes):
        executed.append(source)
        plain(source, *scopes)

    monkeypatch.setattr(builtins, "exec", spy)
    monkeypatch.delitem(sys.modules, "zz_sample.core.point")
    point = importlib.import_module("zz_sample.core.point").Point
    made = [source for source in executed if not isinstance(source, str)]
    assert len(executed) == len(made) > 0, "a text was compiled again"
    assert repr(point(1)) == "Point(x=1, y=0)"
    assert point(1) == point(1, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point(1).x = 2


def test_a_text_that_the_table_does_not_know_is_compiled(package: Path):
    table, _ = collect(["zz_sample.core.point"])
    replace_exec(looking_up(table))
    assert dataclasses.make_dataclass("Other", ["z"])(3).z == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\r\n" + marshal.dumps({b"a": b"b"}),
        MAGIC_NUMBER,
        MAGIC_NUMBER + marshal.dumps({b"a": b"b"})[:-1],
        MAGIC_NUMBER + marshal.dumps([1, 2]),
        MAGIC_NUMBER + b"\xff\xff",
    ],
)
def test_another_file_is_no_table(data: bytes, tmp_path: Path):
    assert decode(data) == {}
    file = tmp_path / "dataclasses.code"
    file.write_bytes(data)
    before = vars(dataclasses).get("exec")
    use(file)
    assert vars(dataclasses).get("exec") is before


def test_no_file_is_no_error(tmp_path: Path):
    use(tmp_path / "none")
    assert "exec" not in vars(dataclasses)


def test_same_table_same_bytes():
    assert encode({b"b": b"2", b"a": b"1"}) == encode({b"a": b"1", b"b": b"2"})
    assert decode(encode({b"a": b"1"})) == {b"a": b"1"}
