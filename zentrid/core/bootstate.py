"""The boot state: the few values that the boot script and zentrid share, their text form, and every change to them.

Source of the format: U-Boot's `env export -c -s 0x1000`: a little-endian CRC32 over the other 4092 bytes, then
`name=value` entries ended by NUL, a further NUL, zero padding. Numbers are hexadecimal without a prefix, as the
script's `setexpr` writes them. Pure: reading and writing is the business of the adapter.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from zentrid.core.names import BOOT_TRIES, BOOTSTATE_COPY_BYTES, MAX_FAULTS, SAFE_SLOT, SLOTS, SlotName
from zentrid.core.version import BadVersionError, Version, decode_version, encode_version, parse_version
from zentrid.errors import ZentriError


def seq_end(bits: int) -> int:
    """Return the number that every sequence number stays below where the boot loader's words have so many bits.

    The boot script compares in signed words; staying far below their greatest number keeps both sides in agreement.
    """
    return 1 << (bits - 2)


_CRC_BYTES: Final = 4
_MAX_SEQ: Final = seq_end(64 if sys.maxsize > 2**32 else 32)
"""The boot loader's words are those of the processor, and so are this program's."""
_MAX_COLD_BOOTS: Final = 0x14
_FAULT_FIELDS: Final = 6
_FAULT_TEXT_CHARS: Final = 40
_FAULT_DETAIL_CHARS: Final = 160
_NO_VERSION: Final = Version(0, 0, 0)
_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}")
_T = TypeVar("_T")


class BootStateLostError(ZentriError):
    """Neither copy of the boot state is valid."""

    reason = "boot_state_lost"

    def __init__(self) -> None:
        super().__init__("both copies of the boot state are damaged; defaults are used until a new one is written")


class BootStateWriteError(ZentriError):
    """The boot state on the disk is not what was to be written, so what depends on it has failed."""

    reason = "boot_state_not_written"

    def __init__(self, detail: str) -> None:
        super().__init__(f"the boot state could not be written ({detail}); check the disk and try again")
        self.detail = detail


class CorruptCopyError(ZentriError):
    """One copy of the boot state is not valid: wrong length or checksum."""

    reason = "boot_state_copy_corrupt"


@dataclass(frozen=True)
class Fault:
    """One exception of the device, as short as it must be to fit the boot state."""

    cause: str
    """One word: `reset` (by the boot script, not explained yet), `panic`, `oops`, `hang`, `application`, `supervisor`,
    `state_lost`, `forced`; at most 40 characters."""
    slot: str
    """The slot that ran: `a`, `b`, `r`, or `?` when not known."""
    version: str
    """The release that ran, or `?`."""
    uptime_s: int
    """Seconds from the kernel's start to the exception; 0 when not known."""
    utc: str
    """ISO 8601 with `Z`, or `?` when the clock was not set."""
    detail: str = ""
    """The panic line, exit code or program counter; at most 160 printable ASCII characters."""


@dataclass(frozen=True)
class BootState:
    """The boot state with its types. The defaults are what the boot script assumes when both copies are lost."""

    seq: int = 0
    """Grows with each write; the valid copy with the greater one counts."""
    order: tuple[SlotName, ...] = SLOTS
    """The slots in the order in which the boot script tries them (`BOOT_ORDER`)."""
    a_left: int = BOOT_TRIES
    """Boots that slot A may still try, 0 to 9 (`BOOT_A_LEFT`)."""
    b_left: int = BOOT_TRIES
    """The same of slot B."""
    a_good: bool = False
    """Slot A was marked good at least once since it was last installed (`BOOT_A_GOOD`)."""
    b_good: bool = False
    """The same of slot B."""
    running: bool = False
    """Set by the boot script, cleared by a clean shutdown: still set after a warm reset means an exception."""
    last: str = ""
    """The system that the boot script started last, `a`, `b` or `r`; empty: none yet."""
    faults: int = 0
    """Exceptions since the last reset of the counter, 0 to 8; eight mean safe mode."""
    fault_records: tuple[Fault, ...] = ()
    """The newest records, oldest first; at most eight. The boot script's own have the cause `reset` and little else: the next
    supervisor fills in what it finds. May be fewer than `faults` when a record was unreadable."""
    cold_boots: int = 0
    """Cold boots in a row without becoming healthy, 0 to 20."""
    safemode: bool = False
    """The next boot is asked to be safe mode."""
    factory_reset: int = 0
    """0 none, 1 everything on the data partition, 2 settings only."""
    floor: Version = _NO_VERSION
    """No release older than this may be installed."""
    boot_floor: Version = _NO_VERSION
    """No slot older than this boots."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """One sentence for each value that could not be read and was replaced by its default."""

    def left(self, slot: SlotName) -> int:
        """Return the tries left of `slot`; 0 for the safe-mode slot, which has no counter."""
        return {"a": self.a_left, "b": self.b_left}.get(slot, 0)

    def good(self, slot: SlotName) -> bool:
        """Tell whether `slot` was ever marked good since it was installed; the safe-mode slot always counts as good."""
        return {"a": self.a_good, "b": self.b_good}.get(slot, True)


# --- text form -------------------------------------------------------------------------------------------------
def encode(state: BootState) -> bytes:
    """Return one copy, 4096 bytes, that U-Boot's `env import -c` and `fw_printenv` accept.

    Raises ValueError if the values do not fit, which the caps on each of them exclude.
    """
    entries = sorted(f"{name}={value}" for name, value in _to_text(state).items())
    body = b"".join(entry.encode("ascii") + b"\0" for entry in entries) + b"\0"
    room = BOOTSTATE_COPY_BYTES - _CRC_BYTES
    if len(body) > room:
        raise ValueError(f"the boot state takes {len(body)} bytes, {room} are there")
    body = body.ljust(room, b"\0")
    return zlib.crc32(body).to_bytes(_CRC_BYTES, "little") + body


def decode(copy: bytes) -> BootState:
    """Return the state in one copy.

    Strict on length and checksum (CorruptCopyError); after that tolerant: unknown names are ignored and a value that is
    none of its type becomes its default and is noted, because a device that boots is worth more than a tidy state.
    """
    if len(copy) != BOOTSTATE_COPY_BYTES:
        raise CorruptCopyError(f"a copy of the boot state has {len(copy)} bytes instead of {BOOTSTATE_COPY_BYTES}")
    body = copy[_CRC_BYTES:]
    if zlib.crc32(body) != int.from_bytes(copy[:_CRC_BYTES], "little"):
        raise CorruptCopyError("a copy of the boot state has a wrong checksum")
    values: dict[str, str] = {}
    for entry in body.split(b"\0\0", 1)[0].split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals:
            values[name.decode("ascii", "replace")] = value.decode("ascii", "replace")
    return _from_text(values)


def newest(copy0: bytes, copy1: bytes) -> tuple[BootState, int]:
    """Return the newest valid state and the number of its copy (0 or 1).

    On equal `seq` copy 1 counts, and one without a usable number is none, as in the boot script. Raises BootStateLostError
    when neither copy is valid.
    """
    best: tuple[BootState, int] | None = None
    for number, copy in enumerate((copy0, copy1)):
        try:
            state = decode(copy)
        except CorruptCopyError:
            continue
        if not 0 < state.seq < _MAX_SEQ:
            continue
        if best is None or state.seq >= best[0].seq:
            best = (state, number)
    if best is None:
        raise BootStateLostError
    return best


def _to_text(state: BootState) -> dict[str, str]:
    values = {
        "seq": f"{state.seq:x}",
        "BOOT_ORDER": " ".join(slot.upper() for slot in state.order),
        "BOOT_A_LEFT": f"{state.a_left:x}",
        "BOOT_B_LEFT": f"{state.b_left:x}",
        "BOOT_A_GOOD": str(int(state.a_good)),
        "BOOT_B_GOOD": str(int(state.b_good)),
        "running": str(int(state.running)),
        "last": state.last,
        "faults": f"{state.faults:x}",
        "cold_boots": f"{state.cold_boots:x}",
        "safemode": str(int(state.safemode)),
        "factory_reset": str(state.factory_reset),
        "floor": "{}.{}.{}".format(*state.floor),
        "boot_floor": f"{encode_version(state.boot_floor):08x}",
    }
    for number, fault in enumerate(state.fault_records[-MAX_FAULTS:]):
        values[f"fault_{number}"] = _fault_to_text(fault)
    return values


def _clean(text: str, limit_chars: int) -> str:
    """Return `text` as printable ASCII without the separator, cut to the limit."""
    printable = (char if " " <= char <= "~" and char != ";" else "?" for char in text[:limit_chars])
    return "".join(printable)


def _fault_to_text(fault: Fault) -> str:
    uptime_s = min(max(fault.uptime_s, 0), 10**9)
    short = [_clean(text, _FAULT_TEXT_CHARS) for text in (fault.cause, fault.slot, fault.version)]
    return ";".join(
        [*short, str(uptime_s), _clean(fault.utc, _FAULT_TEXT_CHARS), _clean(fault.detail, _FAULT_DETAIL_CHARS)]
    )


def _fault_from_text(text: str) -> Fault:
    parts = text.split(";")
    if len(parts) != _FAULT_FIELDS or not parts[3].isdecimal() or len(parts[3]) > 10:
        raise ValueError(text)
    cause, slot, version, uptime_s, utc, detail = parts
    return Fault(cause, slot, version, int(uptime_s), utc, detail[:_FAULT_DETAIL_CHARS])


class _Reader:
    """Takes typed values out of the text form and keeps a note of each that is none of its type."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self.notes: list[str] = []

    def take(self, name: str, default: _T, parse: Callable[[str], _T]) -> _T:
        text = self._values.get(name)
        if not text:
            return default
        try:
            return parse(text)
        except (ValueError, BadVersionError):
            self.notes.append(f"{name}={text[:40]!r} in the boot state makes no sense; its default is used")
            return default

    def number(self, name: str, default: int, most: int) -> int:
        return self.take(name, default, lambda text: _number(text, most))

    def flag(self, name: str) -> bool:
        return bool(self.number(name, 0, 1))


def _number(text: str, most: int) -> int:
    if not _HEX.fullmatch(text) or int(text, 16) > most:
        raise ValueError(text)
    return int(text, 16)


def _order(text: str) -> tuple[SlotName, ...]:
    wanted = text.split()
    slots = tuple(slot for name in wanted for slot in SLOTS if slot.upper() == name)
    if len(slots) != len(wanted) or len(set(slots)) != len(SLOTS):
        raise ValueError(text)
    return slots


def _system(text: str) -> str:
    if text not in ("", *SLOTS, SAFE_SLOT):
        raise ValueError(text)
    return text


def _from_text(values: dict[str, str]) -> BootState:
    read = _Reader(values)
    fresh = BootState()
    records = [read.take(f"fault_{number}", None, _fault_from_text) for number in range(MAX_FAULTS)]
    state = BootState(
        seq=read.number("seq", 0, _MAX_SEQ),
        order=read.take("BOOT_ORDER", fresh.order, _order),
        a_left=read.number("BOOT_A_LEFT", fresh.a_left, 9),
        b_left=read.number("BOOT_B_LEFT", fresh.b_left, 9),
        a_good=read.flag("BOOT_A_GOOD"),
        b_good=read.flag("BOOT_B_GOOD"),
        running=read.flag("running"),
        last=read.take("last", "", _system),
        faults=read.number("faults", 0, MAX_FAULTS),
        fault_records=tuple(record for record in records if record is not None),
        cold_boots=read.number("cold_boots", 0, _MAX_COLD_BOOTS),
        safemode=read.flag("safemode"),
        factory_reset=read.number("factory_reset", 0, 2),
        floor=read.take("floor", _NO_VERSION, parse_version),
        boot_floor=read.take("boot_floor", _NO_VERSION, lambda text: decode_version(_number(text, 0xFFFFFFFF))),
    )
    return replace(state, notes=tuple(read.notes))


# --- transitions: each returns the state that is to be written --------------------------------------------------
def _with_slot(state: BootState, slot: SlotName, *, left: int, good: bool) -> BootState:
    if slot == "a":
        return replace(state, a_left=left, a_good=good)
    if slot == "b":
        return replace(state, b_left=left, b_good=good)
    raise ValueError(f"slot {slot!r} has no counters in the boot state")


def mark_good(state: BootState, slot: SlotName, version: Version, boot_floor: Version | None) -> BootState:
    """Record that the running release is healthy: its slot gets its tries back, the floors rise (they never fall).

    `boot_floor` is what the release's manifest asks for; None: it asks for nothing. The safe-mode slot has no counters
    and is not a release: it only ends the count of cold boots.
    """
    healthy = replace(state, cold_boots=0)
    if slot not in SLOTS:
        return healthy
    raised = state.boot_floor if boot_floor is None else max(state.boot_floor, min(boot_floor, version))
    return replace(
        _with_slot(healthy, slot, left=BOOT_TRIES, good=True), floor=max(state.floor, version), boot_floor=raised
    )


def prepare_target(state: BootState, slot: SlotName) -> BootState:
    """Take every try from a slot that is about to be overwritten, and put it last: nothing boots it until activated.

    Putting it last makes "activated" readable from the boot state alone: only `activate` puts a target first again.
    """
    order = (*(other for other in SLOTS if other != slot), slot)
    return replace(_with_slot(state, slot, left=0, good=False), order=order)


def activate(state: BootState, slot: SlotName, *, from_safe_mode: bool = False) -> BootState:
    """Put a slot that was written and verified first, with three tries; it has yet to prove itself.

    From safe mode the faults are forgotten: they led there, the new release is the way out, and its tries judge it.
    """
    order = (slot, *(other for other in SLOTS if other != slot))
    state = clear_faults(state) if from_safe_mode else state
    return replace(_with_slot(state, slot, left=BOOT_TRIES, good=False), order=order, cold_boots=0)


def clean_shutdown(state: BootState) -> BootState:
    """Say that the next warm reset is one that was asked for, no exception."""
    return replace(state, running=False)


def add_fault(state: BootState, fault: Fault, *, most: int = MAX_FAULTS) -> BootState:
    """One exception more; the oldest record gives way when there are `most`.

    `most` is one less than eight for a release on trial: its tries decide about it, not safe mode.
    """
    faults = max(state.faults, min(state.faults + 1, most))
    return replace(state, faults=faults, fault_records=(*state.fault_records, fault)[-max(faults, 1) :])


def raise_floor(state: BootState, version: Version) -> BootState:
    """Record that a release without firmware is healthy: nothing older is installed any more, as after any other release."""
    return replace(state, floor=max(state.floor, version))


def forget_release(state: BootState, slot: SlotName, version: str) -> BootState:
    """Drop the faults of a release that was taken back: they say nothing about the one that runs now.

    `version`: the release that `slot` held; a record without a version counts as its.
    """
    kept = tuple(f for f in state.fault_records if not (f.slot == slot and f.version in (version, "?")))
    gone = len(state.fault_records) - len(kept)
    return replace(state, faults=max(state.faults - gone, 0), fault_records=kept)


def clear_faults(state: BootState) -> BootState:
    """Empty the list, the counter, and the request for safe mode that eight faults amount to."""
    return replace(state, faults=0, fault_records=(), safemode=False)


def request_safe_mode(state: BootState) -> BootState:
    """Ask for safe mode at the next boot."""
    return replace(state, safemode=True)


def request_factory_reset(state: BootState, *, settings_only: bool = False) -> BootState:
    """Ask early user space for a factory reset at the next boot."""
    return replace(state, factory_reset=2 if settings_only else 1)


def factory_reset_done(state: BootState) -> BootState:
    """Clear the request for a factory reset: the last thing that one does.

    One of everything also withdraws a request for safe mode, which only data that cannot be mounted makes: it is new now.
    Eight faults are about the software, so they stay.
    """
    return replace(state, factory_reset=0, safemode=state.safemode and state.factory_reset != 1)
