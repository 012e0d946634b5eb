"""The boot state on the disk: an ordinary file stands for the partition."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from zentrid.adapters.bootstate import DiskBootStateStore
from zentrid.core.bootstate import (
    BootState,
    BootStateLostError,
    BootStateWriteError,
    Fault,
    add_fault,
    encode,
    prepare_target,
)
from zentrid.core.names import BOOTSTATE_COPY_OFFSETS_BYTES


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "bootstate"
    path.write_bytes(bytes(1024 * 1024))
    return path


def put(device: Path, number: int, copy: bytes) -> None:
    with device.open("r+b") as file:
        file.seek(BOOTSTATE_COPY_OFFSETS_BYTES[number])
        file.write(copy)


def test_a_blank_disk_has_no_state(device: Path) -> None:
    with pytest.raises(BootStateLostError):
        DiskBootStateStore(device).read()


def test_no_device_counts_as_lost_and_cannot_be_written(tmp_path: Path) -> None:
    store = DiskBootStateStore(tmp_path / "none")
    with pytest.raises(BootStateLostError):
        store.read()
    with pytest.raises(BootStateWriteError, match="No such file"):
        store.write(BootState())


def test_writes_alternate_and_grow(device: Path) -> None:
    store = DiskBootStateStore(device)
    for seq in range(1, 6):
        assert store.write(BootState(a_left=seq)).seq == seq
        assert store.read() == BootState(seq=seq, a_left=seq)


def full_of_faults(state: BootState, uptime_s: int) -> BootState:
    """A state that fills several sectors, so that a torn write is not a complete one by chance."""
    fault = Fault("panic", "a", "1.0.0", uptime_s, "?", str(uptime_s) * 150)
    return replace(state, faults=8, fault_records=(fault,) * 8)


@pytest.mark.parametrize("cut_bytes", [0, 1, 4, 5, 512, 1024])
def test_a_torn_write_leaves_the_old_state(device: Path, cut_bytes: int) -> None:
    store = DiskBootStateStore(device)
    store.write(full_of_faults(BootState(), 1))
    before = store.write(full_of_faults(BootState(), 2))
    new, old = encode(full_of_faults(BootState(seq=3), 3)), device.read_bytes()[:4096]
    put(device, 0, new[:cut_bytes] + old[cut_bytes:])
    assert store.read() == before


def test_a_damaged_copy_is_the_one_that_is_written_next(device: Path) -> None:
    store = DiskBootStateStore(device)
    store.write(BootState(a_left=1))
    store.write(BootState(a_left=2))
    put(device, 1, b"damage")
    kept = store.read()
    store.write(BootState(b_left=1))
    put(device, 1, b"damage again")
    assert store.read() == kept


def test_what_is_not_on_the_disk_afterwards_is_an_error(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskBootStateStore(device)
    before = store.write(BootState())
    monkeypatch.setattr(os, "pwrite", lambda _fd, data, _offset: len(data))
    with pytest.raises(BootStateWriteError, match="read back differs"):
        store.write(replace(before, a_left=1))
    assert store.read() == before


def test_a_disk_that_refuses_is_an_error(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskBootStateStore(device)
    before = store.write(BootState())

    def full(_fd: int, _data: bytes, _offset: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(BootStateWriteError, match="Input/output error"):
        store.update(lambda state: prepare_target(state, "b"))
    assert store.read() == before


def test_update_writes_only_what_changes(device: Path) -> None:
    store = DiskBootStateStore(device)
    first = store.write(BootState())
    assert store.update(lambda state: state) == first
    assert store.read().seq == first.seq
    assert store.update(lambda state: prepare_target(state, "a")).left("a") == 0
    assert store.read().seq == first.seq + 1


def test_update_starts_from_the_defaults_when_the_state_is_lost(device: Path) -> None:
    store = DiskBootStateStore(device)
    assert store.update(lambda state: prepare_target(state, "a")) == BootState(seq=1, a_left=0, order=("b", "a"))
    assert store.read().left("b") == 3


def test_a_seq_of_the_boot_script_is_followed(device: Path) -> None:
    put(device, 0, encode(BootState(seq=0x2A)))
    assert DiskBootStateStore(device).write(BootState()).seq == 0x2B


def test_faults_of_two_threads_are_both_kept(device: Path) -> None:
    store = DiskBootStateStore(device)
    store.write(BootState())
    fault = Fault("application", "a", "1.0.0", 1, "?")
    threads = [Thread(target=lambda: store.update(lambda state: add_fault(state, fault))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read().faults == 6


def test_a_device_that_cannot_be_opened_for_a_moment_is_not_a_lost_state(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the defaults would be written over a good copy, and that would be called a success."""
    store = DiskBootStateStore(device)
    store.write(BootState())
    store.write(BootState(a_good=True))
    before = device.read_bytes()
    real, calls = os.open, []

    def once(*arguments: object, **keywords: object) -> int:
        calls.append(1)
        if len(calls) <= 2:
            raise OSError(24, "Too many open files")
        return real(*arguments, **keywords)  # type: ignore[arg-type]

    with monkeypatch.context() as busy:
        busy.setattr(os, "open", once)
        with pytest.raises(BootStateWriteError, match="Too many open files"):
            store.update(lambda state: prepare_target(state, "b"))
    assert device.read_bytes() == before
