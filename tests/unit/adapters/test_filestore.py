"""Files on a real disk: whole or not there, at every cut; limits; what is kept with them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from zentrid.adapters import filestore
from zentrid.adapters.filestore import FileStore
from zentrid.core import files
from zentrid.core.crc16 import crc16
from zentrid.core.files import FLAG_ESSENTIAL, FileError, FileInfo, FileMeta, Room


class CutError(BaseException):
    """The power went."""


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "zentri" / "files")


def put(store: FileStore, name: str, data: bytes, meta: FileMeta = FileMeta()) -> FileInfo:  # noqa: B008
    new = store.create(name, len(data), meta)
    try:
        new.write(data)
        return new.finish()
    finally:
        new.abandon()


def content(store: FileStore, name: str) -> bytes:
    file = store.open(name)
    try:
        return file.read(1 << 20)
    finally:
        file.close()


def everything(store: FileStore) -> list[str]:
    return sorted(str(path.relative_to(store.top.parent)) for path in store.top.parent.rglob("*"))


def test_nothing_is_there_at_first(store: FileStore) -> None:
    assert store.list() == []
    store.clear()
    with pytest.raises(FileError, match="no file 'a'"):
        store.stat("a")


def test_written_listed_read_and_deleted(store: FileStore) -> None:
    info = put(store, "webapp/css/a.css", b"body{}", FileMeta("2.0.0", 0x45))
    assert info == FileInfo("webapp/css/a.css", 6, FileMeta("2.0.0", 0x45, 0, crc16(b"body{}")))
    put(store, "b", b"")
    assert [one.name for one in store.list()] == ["b", "webapp/css/a.css"]
    assert store.list()[1] == store.stat("webapp/css/a.css") == info
    assert content(store, "webapp/css/a.css") == b"body{}"
    assert stat.S_IMODE((store.top / "webapp/css/a.css").stat().st_mode) == 0o644
    assert stat.S_IMODE((store.top / "webapp/css").stat().st_mode) == 0o755
    store.delete("webapp/css/a.css")
    assert everything(store) == ["files", "files.new", "files/b"]
    with pytest.raises(FileError, match="no file"):
        store.delete("webapp/css/a.css")


def test_a_file_on_its_way_is_not_there(store: FileStore) -> None:
    put(store, "a", b"old")
    new = store.create("a", 3, FileMeta())
    new.write(b"ne")
    assert content(store, "a") == b"old"
    with pytest.raises(FileError, match="2 of 3"):
        new.finish()
    with pytest.raises(FileError, match="takes 1 bytes more, not 2"):
        new.write(b"ww")
    new.write(b"w")
    assert content(store, "a") == b"old"
    new.finish()
    assert content(store, "a") == b"new"
    with pytest.raises(FileError, match="closed"):
        new.write(b"")
    new.abandon()
    assert content(store, "a") == b"new"


def test_one_that_is_given_up_leaves_nothing(store: FileStore) -> None:
    new = store.create("a/b", 1000, FileMeta())
    new.write(b"x" * 999)
    new.abandon()
    new.abandon()
    assert everything(store) == ["files.new"]
    assert store._room().total_bytes == 0


def test_a_wrong_checksum_is_not_kept(store: FileStore) -> None:
    put(store, "a", b"old")
    with pytest.raises(FileError, match=r"CRC .*send it again"):
        put(store, "a", b"new", FileMeta(crc=crc16(b"net")))
    assert content(store, "a") == b"old"
    put(store, "a", b"net", FileMeta(crc=crc16(b"net")))
    assert content(store, "a") == b"net"


def test_an_essential_file_is_deleted_by_force_only(store: FileStore) -> None:
    put(store, "a", b"1", FileMeta(flags=FLAG_ESSENTIAL))
    with pytest.raises(FileError, match="essential"):
        store.delete("a")
    put(store, "a", b"2", FileMeta(flags=FLAG_ESSENTIAL))
    store.delete("a", force=True)
    assert store.list() == []


def test_folders_and_files_do_not_take_each_others_place(store: FileStore) -> None:
    put(store, "a/b", b"")
    for name, reason in (("a", "is a folder"), ("a/b/c", "'a/b' is a file")):
        with pytest.raises(FileError, match=reason):
            store.create(name, 0, FileMeta())
    with pytest.raises(FileError, match="folder"):
        store.open("a")
    # Also when the other one came while it was on its way.
    late = store.create("c/d", 0, FileMeta())
    put(store, "c", b"")
    with pytest.raises(FileError, match="'c' is a file"):
        late.finish()
    late.abandon()
    assert [info.name for info in store.list()] == ["a/b", "c"]


def test_links_are_no_files(store: FileStore, tmp_path: Path) -> None:
    put(store, "a", b"")
    (tmp_path / "secret").write_text("secret")
    (store.top / "link").symlink_to(tmp_path / "secret")
    (store.top / "away").symlink_to(tmp_path)
    os.mkfifo(store.top / "pipe")
    assert [info.name for info in store.list()] == ["a"]
    with pytest.raises(FileError):
        store.open("link")
    with pytest.raises(FileError):
        store.open("pipe")


def test_who_reads_goes_on_with_the_old_file(store: FileStore) -> None:
    put(store, "a", b"the old one")
    file = store.open("a")
    assert file.read(4) == b"the "
    put(store, "a", b"x")
    store.delete("a")
    assert file.read(100) == b"old one"
    assert file.read(100) == b""
    file.close()
    with pytest.raises(FileError, match="closed"):
        file.read(1)


def test_all_files_together_have_a_limit(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_TOTAL_BYTES", 10)
    put(store, "a", b"12345")
    on_its_way = store.create("b", 4, FileMeta())
    with pytest.raises(FileError, match="room for 1 bytes"):
        store.create("c", 2, FileMeta())
    on_its_way.abandon()
    put(store, "c", b"12345")
    monkeypatch.setattr(files, "MAX_FILES", 2)
    with pytest.raises(FileError, match="2 files already"):
        store.create("d", 0, FileMeta())


def test_what_updates_need_stays_free(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(FileError, match="Updates need the rest"):
        store.create("a", 1, FileMeta())


def test_a_file_of_unknown_size_grows_within_the_limits(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(filestore, "MIB", 100)
    monkeypatch.setattr(filestore, "MAX_FILE_BYTES", 250)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 250)

    def check_growth(room: Room, size_bytes: int, more_bytes: int) -> None:
        asked.append(more_bytes)
        files.check_growth(room, size_bytes, more_bytes)

    monkeypatch.setattr(filestore, "check_growth", check_growth)
    new = store.create("a", None, FileMeta())
    assert not new.complete
    asked.clear()
    for _ in range(25):
        new.write(b"0123456789")
    assert asked == [100, 100, 50]
    with pytest.raises(FileError, match="at most 250"):
        new.write(b"1")
    assert new.finish().size_bytes == 250
    assert content(store, "a") == b"0123456789" * 25


def test_a_full_disk_is_said_and_leaves_the_old_file(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a", b"old")

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(FileError, match="No space left"):
            store.create("a", 3, FileMeta())
    assert everything(store) == ["files", "files.new", "files/a"]
    new = store.create("a", 3, FileMeta())
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(FileError, match="No space left"):
            new.write(b"new")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        new.write(b"new")
        with pytest.raises(FileError, match="cannot be kept"):
            new.finish()
    new.abandon()
    assert content(store, "a") == b"old"
    assert everything(store) == ["files", "files.new", "files/a"]


def test_a_file_system_without_attributes_keeps_the_files_alone(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", none)
    put(store, "a", b"1", FileMeta("2.0.0"))
    assert store.stat("a") == FileInfo("a", 1, FileMeta())


def steps(tmp_path: Path, before: dict[str, bytes], name: str) -> Iterator[FileStore]:
    """Yield stores whose power goes at the first durable step, the second, and so on, and one where it does not."""
    for cut in range(100):
        seen: list[str] = []

        def hook(step: str, cut: int = cut, seen: list[str] = seen) -> None:
            if len(seen) == cut:
                raise CutError(step)
            seen.append(step)

        quiet = FileStore(tmp_path / str(cut) / "files")
        for old, data in before.items():
            put(quiet, old, data, FileMeta("1.0.0"))
        yield FileStore(quiet.top, hook)
        if len(seen) < cut:
            return


@pytest.mark.parametrize("before", [{}, {"a/b": b"old"}], ids=["new", "replaced"])
def test_a_cut_leaves_the_old_file_or_the_new_one(tmp_path: Path, before: dict[str, bytes]) -> None:
    outcomes = set()
    for store in steps(tmp_path, before, "a/b"):
        try:
            new = store.create("a/b", 3, FileMeta("2.0.0"))
            new.write(b"new")
            new.finish()
        except CutError:
            pass
        again = FileStore(store.top)
        again.clear()
        found = {info.name: (content(again, info.name), info.meta.version) for info in again.list()}
        assert found in ({name: (data, "1.0.0") for name, data in before.items()}, {"a/b": (b"new", "2.0.0")})
        assert not (again.top.parent / "files.new").exists()
        outcomes.add(str(found))
        assert again._room().total_bytes == sum(len(data) for data, _ in found.values())
    assert len(outcomes) == 2


def test_the_name_is_given_only_after_the_bytes_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    store = FileStore(tmp_path / "files", lambda step: order.append(step.split()[0]))
    put(store, "b", b"")  # its folders are there
    order.clear()
    real = os.fsync

    def fsync(fd: int) -> None:
        order.append("fsync")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    put(store, "a", b"1")
    wanted = ["write", "attribute", "flush", "fsync", "rename", "flush", "fsync"]
    assert order == wanted


def test_room_is_counted_as_the_disk_has_it(store: FileStore) -> None:
    put(store, "a", b"123")
    room = store._room()
    assert room == Room(1, 3, room.free_bytes, room.free_inodes)
    assert room.free_bytes > 0


def test_the_next_start_removes_folders_that_got_no_file(store: FileStore) -> None:
    put(store, "a/b", b"1")
    (store.top / "a/c/d").mkdir(parents=True)
    (store.top / "e").mkdir()
    (store.top / "f").symlink_to(store.top / "a")
    with pytest.raises(FileError, match="is a folder"):
        put(store, "e", b"2")
    FileStore(store.top).clear()
    assert sorted(path.name for path in store.top.iterdir()) == ["a", "f"]
    assert [path.name for path in (store.top / "a").iterdir()] == ["b"]
    put(store, "e", b"2")
    assert content(store, "a/b") == b"1"
