"""Writing files: modes whatever the umask says, nothing written over, nothing half-written left."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from scripts.bundle_tool.files import whole_or_nothing, write_new


@pytest.fixture(params=[0o000, 0o077])
def umask(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("secret", "mode"), [(True, 0o600), (False, 0o644)])
def test_mode_does_not_hang_on_the_umask(tmp_path: Path, secret: bool, mode: int) -> None:
    write_new(tmp_path / "x", b"content", secret=secret)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_nothing_is_written_over(tmp_path: Path) -> None:
    write_new(tmp_path / "x", b"old", secret=True)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "x", b"new", secret=True)
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_new_file_that_fails_is_not_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_new(tmp_path / "x", b"content", secret=True)
    assert list(tmp_path.iterdir()) == []


def test_a_replacement_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def interrupted() -> None:
        with whole_or_nothing(tmp_path / "x") as stream:
            stream.write(b"ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
