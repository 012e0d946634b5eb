"""Compiled code of dataclasses: found by its text, never needed, never believed from another Python."""

import builtins
import dataclasses
import marshal
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path

import pytest

from scripts.image.dataclasscode import collect, modules
from zentrid import dataclasscode
from zentrid.dataclasscode import decode, encode, looking_up, use

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
    return folder


def make_point() -> type:
    return dataclasses.make_dataclass("Point", [("x", int), ("y", int, 0)], frozen=True)


def test_modules_are_all_but_programs(package: Path):
    assert modules(package) == ["zz_sample", "zz_sample.core", "zz_sample.core.point", "zz_sample.gone"]


def test_what_can_be_imported_is_collected_and_the_rest_is_named(package: Path):
    table, failed = collect(modules(package))
    assert table
    assert failed == ["zz_sample.gone: No module named 'no_such_module'"]
    assert vars(dataclasses)["exec"] is builtins.exec, "collecting has an end"


def test_a_known_text_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    texts = []

    def spy(source, *scopes):
        texts.append(source)
        builtins.exec(source, *scopes)

    dataclasscode.replace_exec(spy)
    make_point()
    table = {
        source_hash(text.encode()): marshal.dumps(compile(text, "<dataclass>", "exec"))
        for text in texts
        if isinstance(text, str)
    }
    assert table
    file = tmp_path / "dataclasses.code"
    file.write_bytes(encode(table))
    use(file)
    executed = []
    monkeypatch.setattr(builtins, "exec", lambda source, *scopes: executed.append(source))
    for text in texts:
        vars(dataclasses)["exec"](text, {}, {})
    assert executed
    assert not [source for source in executed if isinstance(source, str)], "these were compiled again"


def test_a_class_works_with_the_table_and_without(tmp_path: Path):
    def behaviour(point: type) -> tuple[object, ...]:
        one = point(1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.x = 2
        return repr(one), one == point(1, 0), hash(one) == hash(point(1)), dataclasses.replace(one, y=5).y

    plain = behaviour(make_point())
    collected: dict[bytes, bytes] = {}

    def collecting(source, *scopes):
        if isinstance(source, str):
            collected[source_hash(source.encode())] = marshal.dumps(compile(source, "<dataclass>", "exec"))
        builtins.exec(source, *scopes)

    dataclasscode.replace_exec(collecting)
    make_point()
    dataclasscode.replace_exec(looking_up(collected))
    assert behaviour(make_point()) == plain
    other = dataclasses.make_dataclass("Other", ["z"])
    assert other(3).z == 3, "a text that the table does not know is compiled"


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
