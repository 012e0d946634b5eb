"""What ended the last boot: reads the kernel's last words, as pstore keeps them over a reset, and completes fault records. Pure.

The text may be hostile or garbled (it was in RAM during a crash): whatever it is, an answer comes out and no error.
Sources of the forms: Linux 6.12, `fs/pstore` (header line, levels), `kernel/panic.c`, `traps.c` of arm64 and arm,
`drivers/md/dm-verity-target.c`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Final

from zentrid.core.bootstate import BootState, Fault

MAX_TEXT_CHARS: Final = 4096
MAX_DETAIL_CHARS: Final = 160
RESET: Final = "reset"
"""The cause that the boot script writes; a record is explained once it has a detail."""
NOTHING_LEFT: Final = "nothing is left that tells why: the power was cut, or another reset came first"
SOFTWARE: Final = "restarted by software without a clean shutdown"
SILENT: Final = "no sign of life, restarted by the watchdog"

_MAX_LINE_CHARS: Final = 300
_MAX_LINES: Final = 4000
_SAME_EVENT_S: Final = 10
_EARLIEST_CLOCK_S: Final = 1_577_836_800
"""2020: a clock before that was never set."""
_HEADER = re.compile(r"(Panic|Oops|Emergency)#(\d{1,6}) Part(\d{1,4})")
_LEVEL = re.compile(r"<\d{1,3}>")
_STAMP = re.compile(r"\[ *(\d{1,9})\.\d{1,9}\](?:\[[^\]]{0,20}\])? ?")
_PANIC: Final = "Kernel panic - not syncing: "
_OOPS: Final = ("Unable to handle kernel ", "Internal error: ", "kernel BUG at ", "BUG: ")
_DIES_OF_OOPS: Final = "Fatal exception"
_PC = re.compile(r"(?:pc ?: ?|PC is at )([\w.$]{1,80}\+0x[0-9a-f]{1,8})")
_COUNT = re.compile(r" \[#\d+\].*")
_VERITY = re.compile(r"device-mapper: verity: .{0,80} block \d{1,20} is corrupted")
_RESTART: Final = "reboot: Restarting system"
_VERITY_RESTART: Final = "dm-verity device"
_NOISE = re.compile(
    r"(?:x\d{1,2} ?: ?[0-9a-f]|Code: |Hardware name: |Modules linked in|CPU features: |Kernel Offset|Memory Limit)"
)


@dataclass(frozen=True)
class Words:
    """One file of pstore."""

    name: str
    """`dmesg-ramoops-0`, `console-ramoops-0`, …"""
    text: str
    time_s: float = 0.0
    """When it was written, seconds since 1970; 0: not known."""

    @property
    def is_console(self) -> bool:
        """The end of what the last boot's console said, rather than what the kernel kept when it gave up."""
        return self.name.startswith("console-")


@dataclass(frozen=True)
class Finding:
    """How one boot ended."""

    cause: str
    """`panic`, `oops`, `corruption`, `hang`, or `reset` when there is not enough to tell."""
    detail: str
    uptime_s: int = 0
    utc: str = "?"
    text: str = ""
    """What is worth reading of the last words, at most MAX_TEXT_CHARS of printable ASCII and line ends."""


@dataclass(frozen=True)
class Explained:
    """A fault that is in the boot state already, and that nobody has been told of."""

    fault: Fault
    text: str


@dataclass(frozen=True)
class _Log:
    """Lines without their levels and stamps."""

    lines: tuple[str, ...]
    uptime_s: int
    time_s: float = 0.0

    def find(self, *beginnings: str) -> int | None:
        """Return the number of the first line that begins so."""
        return next((number for number, line in enumerate(self.lines) if line.startswith(beginnings)), None)


# --- reading ----------------------------------------------------------------------------------------------------------
def _printable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else " " if char == "\t" else "?" for char in text)


def _read(text: str, time_s: float = 0.0) -> _Log:
    lines, uptime_s = [], 0
    for raw in text.splitlines()[-_MAX_LINES:]:
        line = _LEVEL.sub("", raw[:_MAX_LINE_CHARS], count=1) if raw.startswith("<") else raw[:_MAX_LINE_CHARS]
        if stamp := _STAMP.match(line):
            uptime_s = int(stamp[1])
            line = line[stamp.end() :]
        if line.strip() and not _HEADER.match(line):
            lines.append(_printable(line.rstrip()))
    return _Log(tuple(lines), uptime_s, time_s)


def _dumps(records: Sequence[Words]) -> list[_Log]:
    """Return the kernel's dumps, newest first: parts put together, an oops and the panic that follows from it as one."""
    pieces: dict[tuple[str, str], list[tuple[int, Words]]] = {}
    order = sorted((r for r in records if not r.is_console), key=lambda r: (r.time_s, r.name), reverse=True)
    for record in order:
        header = _HEADER.match(record.text)
        key = (header[1], f"{header[2]} {int(record.time_s)}") if header else ("", record.name)
        pieces.setdefault(key, []).append((int(header[3]) if header else 1, record))
    dumps: list[_Log] = []
    newer_kind = ""
    for (kind, _), parts in pieces.items():
        # Part 1 is the end of the log; higher parts come before it.
        text = "\n".join(part.text for _, part in sorted(parts, key=lambda part: -part[0]))
        log = _read(text, parts[0][1].time_s)
        same = newer_kind == "Panic" and kind == "Oops" and 0 <= dumps[-1].uptime_s - log.uptime_s <= _SAME_EVENT_S
        if not same:
            dumps.append(log)
        newer_kind = kind
    return dumps


# --- judging ----------------------------------------------------------------------------------------------------------
def _detail(text: str, log: _Log) -> str:
    """Return a short line, with the place in the kernel if the log has one."""
    place = next((found[1] for line in log.lines if (found := _PC.match(line))), "")
    end = f" at {place}" if place else ""
    return text.strip()[: MAX_DETAIL_CHARS - len(end)] + end


def _excerpt(lines: Sequence[str]) -> str:
    """Return the beginning of `lines` without registers and the like: a call trace has its innermost call first."""
    return "\n".join(line for line in lines if not _NOISE.match(line))[:MAX_TEXT_CHARS]


def _utc(time_s: float) -> str:
    if not _EARLIEST_CLOCK_S <= time_s < 2**33:
        return "?"
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _crash(log: _Log) -> Finding | None:
    """Return what made the kernel give up; None if it did not."""
    panic, oops = log.find(_PANIC), log.find(*_OOPS)
    reason = log.lines[panic].removeprefix(_PANIC) if panic is not None else ""
    # Not every BUG: line ends a kernel; one that a panic of another reason follows is not why.
    if oops is not None and (panic is None or _DIES_OF_OOPS in reason):
        detail, cause, begin = _COUNT.sub("", log.lines[oops]), "oops", oops
    elif panic is not None:
        detail, cause, begin = reason or "kernel panic", "panic", panic
    else:
        return None
    return Finding(cause, _detail(detail, log), log.uptime_s, _utc(log.time_s), _excerpt(log.lines[begin:]))


def _dump_finding(log: _Log) -> Finding:
    """A dump exists only because the kernel gave up, however little of it can be read."""
    damaged = Finding("panic", "the kernel gave up, but its last words are damaged", log.uptime_s, _utc(log.time_s))
    return _crash(log) or replace(damaged, text=_last(log))


def _last(log: _Log) -> str:
    return "\n".join(log.lines)[-MAX_TEXT_CHARS:]


def _console_finding(log: _Log) -> Finding:
    """Return how a boot ended whose console said `log` last."""
    crash = _crash(log)
    if crash is not None:
        return crash
    restart = next((line for line in reversed(log.lines) if line.startswith(_RESTART)), None)
    block = next((line for line in reversed(log.lines) if _VERITY.match(line)), None)
    if block is not None or (restart is not None and _VERITY_RESTART in restart):
        # The board's console shows emergencies only, and the line that names the block is none.
        detail = block or f"the verified root file system cannot be read: {_quoted(restart or '')}"
        return Finding("corruption", _detail(detail, log), log.uptime_s, text=_last(log))
    if restart is not None:
        return Finding(RESET, _detail(SOFTWARE, log), log.uptime_s, text=_last(log))
    detail = f"{SILENT}; the console said last: {log.lines[-1]}"
    return Finding("hang", detail[:MAX_DETAIL_CHARS], log.uptime_s, text=_last(log))


def _quoted(line: str) -> str:
    """Return what stands between the first and the last quote of `line`."""
    return line.partition("'")[2].rpartition("'")[0]


def examine(records: Sequence[Words], *, warm: bool, resets: int = 1) -> tuple[Finding, ...]:
    """Return how the last boots ended, newest first, from what pstore holds.

    `warm`: RAM has kept its content, so silence means something. `resets`: how many ends are to be explained. A console of
    the last boot that tells of no panic means that the dumps are of boots before it.
    """
    findings = [_dump_finding(log) for log in _dumps(records)]
    console = next((log for r in records if r.is_console and (log := _read(r.text, r.time_s)).lines), None)
    if console is not None:
        last = _console_finding(console)
        if last.cause not in ("panic", "oops") or not findings:
            findings.insert(0, last)
    elif warm and len(findings) < resets:
        # A kernel that gives up says so on its console, too: without a word there the last boot hung.
        findings.insert(0, Finding("hang", SILENT))
    return tuple(findings)


# --- completing the records ---------------------------------------------------------------------------------------------
def unexplained(state: BootState) -> int:
    """Return how many records of the boot script nobody has explained yet."""
    return sum(map(_open, state.fault_records))


def _open(fault: Fault) -> bool:
    return fault.cause == RESET and not fault.detail


def explain(
    state: BootState, found: Sequence[Finding], versions: Mapping[str, str]
) -> tuple[BootState, tuple[Explained, ...]]:
    """Return the state with every record of the boot script completed, and what was completed, oldest first.

    The newest record gets the newest finding; records without one stay `reset` and say that nothing is left. `versions`: what
    each slot holds. The number of faults never changes, nor do records that were explained before.
    """
    records, told = list(state.fault_records), []
    ends = chain(found, repeat(Finding(RESET, NOTHING_LEFT)))
    for number in reversed(range(len(records))):
        if not _open(records[number]):
            continue
        end = next(ends)
        old = records[number]
        version = versions.get(old.slot, "?")
        records[number] = Fault(end.cause, old.slot, version, end.uptime_s, end.utc, end.detail)
        told.append(Explained(records[number], end.text))
    return replace(state, fault_records=tuple(records)), tuple(reversed(told))


def complete(state: BootState, found: Sequence[Finding], versions: Mapping[str, str]) -> BootState:
    """Return the state with every record of the boot script completed; see `explain`."""
    return explain(state, found, versions)[0]
