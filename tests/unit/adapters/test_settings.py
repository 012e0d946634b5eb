"""Settings in flash: cut anywhere, damaged anyhow, they are the last saved ones or those before; and loading never fails."""

from __future__ import annotations

import asyncio
import itertools
import json
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.adapters.settings import (
    MAX_FILE_BYTES,
    BadSettingsFileError,
    OsFiles,
    SettingsSaveError,
    SettingsStore,
    decode,
    encode,
)
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import Value

FOLDER = Path("/data/zentri")


class PowerCutError(Exception):
    """The power went."""


class DiskModel:
    """A disk in memory that forgets at a power cut what was not flushed.

    `durable` is what certainly is on the disk; `loose` are the operations since, any of which may have got there or not: a
    file's new content (whole, or torn in the middle) and a rename.
    """

    def __init__(self, durable: dict[Path, bytes] | None = None, cut_after: int | None = None) -> None:
        self.durable = dict(durable or {})
        self.now = dict(self.durable)
        self.loose: list[Callable[[dict[Path, bytes]], None]] = []
        self.operations = 0
        self._cut_after = cut_after

    def _count(self) -> None:
        if self._cut_after is not None and self.operations >= self._cut_after:
            raise PowerCutError
        self.operations += 1

    def read(self, path: Path, limit_bytes: int) -> bytes:
        if path not in self.now:
            raise FileNotFoundError(path)
        return self.now[path][:limit_bytes]

    def write(self, path: Path, data: bytes) -> None:
        self._count()
        self.now[path] = data
        self.loose.append(lambda disk: disk.__setitem__(path, data[: len(data) // 2]))
        self.loose.append(lambda disk: disk.__setitem__(path, data))

    def flush(self, path: Path) -> None:
        self._count()
        self.durable[path] = self.now[path]
        self.loose.clear()  # the model's only file in flight; its earlier names were flushed before

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        self.now[target] = self.now.pop(source)

        def happen(disk: dict[Path, bytes]) -> None:
            if source in disk:
                disk[target] = disk.pop(source)

        self.loose.append(happen)

    def flush_folder(self, path: Path) -> None:
        self._count()
        self.durable = dict(self.now)
        self.loose.clear()

    def after_power_cut(self) -> Iterator[dict[Path, bytes]]:
        """Yield every disk that may be found: all subsets of what was loose."""
        for size in range(len(self.loose) + 1):
            for chosen in itertools.combinations(self.loose, size):
                disk = dict(self.durable)
                for happen in chosen:
                    happen(disk)
                yield disk


def store_on(disk: DiskModel) -> SettingsStore:
    return SettingsStore(FOLDER, VARIABLES, disk)


def save_name(store: SettingsStore, name: str) -> None:
    store.values.set("system.name", name)
    store.save_now()


def two_generations() -> dict[Path, bytes]:
    """Return a disk on which `first` and then `second` were saved."""
    disk = DiskModel()
    store = store_on(disk)
    save_name(store, "first")
    save_name(store, "second")
    return disk.durable


def test_every_cut_leaves_the_last_or_the_one_before() -> None:
    whole = DiskModel(two_generations())
    store = store_on(whole)
    store.load()
    save_name(store, "third")
    assert whole.operations == 5
    disks = 0
    for cut_after in range(whole.operations + 1):
        disk = DiskModel(two_generations(), cut_after)
        store = store_on(disk)
        assert store.load().problems == ()
        try:
            save_name(store, "third")
            finished = True
        except PowerCutError:
            finished = False
        for found in disk.after_power_cut():
            disks += 1
            again = store_on(DiskModel(found))
            report = again.load()
            assert report.source != "defaults", (cut_after, found)
            name = again.values.text("system.name")
            assert name == "third" if finished else name in ("second", "third"), (cut_after, found)
    assert disks > 12


def test_a_cut_during_the_very_first_save_leaves_defaults_or_the_new_values() -> None:
    for cut_after in range(4):
        disk = DiskModel(cut_after=cut_after)
        with pytest.raises(PowerCutError):
            save_name(store_on(disk), "first")
        for found in disk.after_power_cut():
            again = store_on(DiskModel(found))
            again.load()
            assert again.values.text("system.name") in ("", "first")


def test_saving_after_falling_back_keeps_the_sound_file() -> None:
    files = two_generations()
    files[FOLDER / "settings.json"] = b"damaged"
    for cut_after in range(5):
        disk = DiskModel(files, cut_after)
        store = store_on(disk)
        assert store.load().source == "previous"
        try:
            save_name(store, "third")
        except PowerCutError:
            pass
        else:
            assert disk.durable[FOLDER / "settings.previous.json"] == files[FOLDER / "settings.previous.json"]
        for found in disk.after_power_cut():
            again = store_on(DiskModel(found))
            again.load()
            assert again.values.text("system.name") in ("first", "third")


# --- what loading finds -----------------------------------------------------------------------------------------------
def test_nothing_saved_yet_is_no_problem(tmp_path: Path) -> None:
    report = SettingsStore(tmp_path, VARIABLES).load()
    assert (report.source, report.problems) == ("defaults", ())


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b"null", b'{"format":1,"values":{},"sha256":7}', b"x" * 300_000]
)
def test_damage_is_told_and_the_file_before_is_used(tmp_path: Path, damage: bytes) -> None:
    store = SettingsStore(tmp_path, VARIABLES)
    save_name(store, "first")
    save_name(store, "second")
    store.path.write_bytes(damage)
    again = SettingsStore(tmp_path, VARIABLES)
    report = again.load()
    assert report.source == "previous"
    assert any("settings.json" in problem for problem in report.problems)
    assert again.values.text("system.name") == "first"
    again.previous_path.write_bytes(damage)
    report = again.load()
    assert report.source == "defaults"
    assert any("defaults" in problem for problem in report.problems)
    assert again.values.text("system.name") == ""


def test_any_flipped_bit_is_found() -> None:
    data = encode({"system.name": "x", "system.boot.deadline": 300})
    values = decode(data)
    for index in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[index] ^= 1 << bit
            try:
                found: dict[str, Value] | None = decode(bytes(flipped))
            except BadSettingsFileError:
                found = None
            assert found in (None, values), (index, bit)


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["format", "values", "sha256"]), inner),
).map(lambda content: json.dumps(content).encode()))  # fmt: skip
def test_decoding_raises_only_its_own_error(data: bytes) -> None:
    try:
        values = decode(data)
    except BadSettingsFileError:
        values = {}
    assert values == {}


def test_unreadable_file(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path, VARIABLES)
    store.path.mkdir()
    report = store.load()
    assert report.source == "defaults"
    assert "cannot be read" in report.problems[0]


def test_values_of_another_version(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path, VARIABLES)
    store.path.write_bytes(encode({"system.boot.deadline": 5, "later.thing": "x", "system.name": "kept"}))
    report = store.load()
    assert report.source == "current"
    assert ["system.boot.deadline" in p for p in report.problems] == [True]
    assert store.values.number("system.boot.deadline") == 120
    save_name(store, "new")
    assert decode(store.path.read_bytes()) == {"later.thing": "x", "system.name": "new"}


# --- saving -----------------------------------------------------------------------------------------------------------
def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path / "new" / "zentri", VARIABLES)
    save_name(store, "first")
    save_name(store, "second")
    for path in (store.path, store.previous_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in store.path.parent.iterdir()) == ["settings.json", "settings.previous.json"]


def test_too_much_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path, VARIABLES)
    save_name(store, "first")
    store.values.take_saved({f"later.{n}": "x" * 2000 for n in range(200)})
    with pytest.raises(SettingsSaveError, match=str(MAX_FILE_BYTES)):
        store.save_now()
    assert decode(store.path.read_bytes()) == {"system.name": "first"}


class FullDisk(OsFiles):
    """No space for anything new."""

    def write(self, path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")


def test_no_space_is_told_and_nothing_changes(tmp_path: Path) -> None:
    save_name(SettingsStore(tmp_path, VARIABLES), "first")
    with pytest.raises(SettingsSaveError, match="No space left"):
        save_name(SettingsStore(tmp_path, VARIABLES, FullDisk()), "second")
    assert decode((tmp_path / "settings.json").read_bytes()) == {"system.name": "first"}


class SlowDisk(OsFiles):
    """Writing waits until it is let go."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go = threading.Event()

    def write(self, path: Path, data: bytes) -> None:
        self.started.set()
        assert self.go.wait(10)
        super().write(path, data)


async def test_a_cancelled_save_still_ends_before_it_is_over(tmp_path: Path) -> None:
    disk = SlowDisk()
    store = SettingsStore(tmp_path, VARIABLES, disk)
    store.values.set("system.name", "first")
    save = asyncio.create_task(store.save())
    await asyncio.to_thread(disk.started.wait, 10)
    save.cancel()
    await asyncio.sleep(0.02)
    assert not save.done()
    disk.go.set()
    await asyncio.wait([save], timeout=5)
    assert save.cancelled()
    assert decode(await asyncio.to_thread(store.path.read_bytes)) == {"system.name": "first"}


async def test_two_saves_at_once_and_a_cancelled_one(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path, VARIABLES)
    store.values.set("system.name", "first")
    saves = [asyncio.create_task(store.save()) for _ in range(3)]
    await asyncio.sleep(0)
    saves[0].cancel()
    await asyncio.gather(*saves, return_exceptions=True)
    assert await store.reload() == ()
    assert store.values.text("system.name") == "first"


async def test_one_variable_is_saved_and_the_others_stay_as_they_were_saved(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path, VARIABLES)
    store.values.set("http.server.root_filename", "mine/page.html")
    save_name(store, "saved")
    for name, root in (("only in memory", "webapp/index.html"), ("still", "other/page.html")):
        store.values.set("system.name", name)
        store.values.set("http.server.root_filename", root)
        await store.save_only("http.server.root_filename")
        again = SettingsStore(tmp_path, VARIABLES)
        assert again.load().problems == ()
        assert (again.values.text("system.name"), again.values.text("http.server.root_filename")) == ("saved", root)
        assert store.values.text("system.name") == name
