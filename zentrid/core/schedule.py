"""When the device updates by itself: time windows, and the decision what to do now. Pure: clocks and results are given.

Windows are of the week, in UTC: `22:00-04:00` is every night, `sat,sun 01:00-05:00` two mornings, `mon-fri 22:00-24:00;sat
00:00-06:00` several. A window whose end is not after its begin goes over midnight and belongs to the day on which it begins. No
window at all means always.

Pauses are counted on the uptime, which no clock setting changes; only the windows look at the time of day, anew at each decision.
So a clock that jumps can open or close a window early, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NamedTuple

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.variables import Value

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_WINDOWS: Final = 8
MAX_WINDOWS_BYTES: Final = 200
EXAMPLE: Final = "mon-fri 22:00-04:00; sat,sun 01:00-05:00"
_DAY_S: Final = 86_400
_WEEK_S: Final = 7 * _DAY_S
_WINDOW: Final = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:[,-][a-z]{3})*) +)?"
    r"(?P<begin>[01][0-9]:[0-5][0-9]|2[0-3]:[0-5][0-9])-(?P<end>[01][0-9]:[0-5][0-9]|2[0-3]:[0-5][0-9]|24:00)"
)


# --- windows ------------------------------------------------------------------------------------------------------------------
class BadWindowsError(ValueError):
    """Text that is no list of windows; the sentence says what is wrong."""


class Open(NamedTuple):
    """A window that is open now."""

    since_s: float
    """How long it has been open (seconds)."""
    length_s: float


@dataclass(frozen=True)
class Windows:
    """Windows of the week in UTC; spans of seconds since Monday 00:00, apart from each other, in order."""

    spans: tuple[tuple[int, int], ...] = ()

    @property
    def always(self) -> bool:
        """Whether there is no time outside."""
        return not self.spans or self.spans == ((0, _WEEK_S),)

    def at(self, moment: datetime) -> Open | None:
        """Return the window that is open at `moment`; None: none is. Not meaningful if `always`."""
        now_s = second_of_week(moment)
        for begin_s, end_s in self.spans:
            for shift_s in (0, _WEEK_S):  # the last span may go over the end of the week
                if begin_s <= now_s + shift_s < end_s:
                    return Open(now_s + shift_s - begin_s, end_s - begin_s)
        return None

    def opens_in_s(self, moment: datetime) -> float:
        """Return how long it is until a window opens; 0 while one is open."""
        if self.always or self.at(moment) is not None:
            return 0.0
        now_s = second_of_week(moment)
        return min((begin_s - now_s) % _WEEK_S for begin_s, _ in self.spans)


def second_of_week(moment: datetime) -> float:
    """Return the seconds since Monday 00:00 UTC."""
    utc = moment.astimezone(UTC)
    of_day_s = utc.hour * 3600 + utc.minute * 60 + utc.second + utc.microsecond / 1e6
    return utc.weekday() * _DAY_S + of_day_s


def parse_windows(text: str) -> Windows:
    """Return the windows that `text` names. Raises BadWindowsError."""
    if not text.strip():
        return Windows()
    parts = text.split(";")
    if len(parts) > MAX_WINDOWS:
        raise BadWindowsError(f"{len(parts)} windows, at most {MAX_WINDOWS} are allowed")
    return Windows(_joined(span for part in parts for span in _spans(part.strip())))


def _spans(text: str) -> Iterable[tuple[int, int]]:
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise BadWindowsError(f"'{text}' is no window: days if not every day, then HH:MM-HH:MM (UTC)")
    begin_s, end_s = _second(match["begin"]), _second(match["end"])
    if begin_s == end_s:
        raise BadWindowsError(f"'{text}' begins when it ends; a whole day is 00:00-24:00")
    if end_s < begin_s:
        end_s += _DAY_S
    for day in _days(match["days"] or ""):
        yield day * _DAY_S + begin_s, day * _DAY_S + end_s


def _second(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def _days(text: str) -> list[int]:
    """Return the numbers of the days in `sat,sun` or `fri-mon`; all for none."""
    if not text:
        return list(range(7))
    found: list[int] = []
    for part in text.split(","):
        names = part.split("-")
        unknown = [name for name in names if name not in DAYS]
        if unknown or len(names) > 2:
            raise BadWindowsError(f"'{part}' is no day: {', '.join(DAYS)}, or two of them with - between")
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        found += [(first + step) % 7 for step in range((last - first) % 7 + 1)]
    return found


def _joined(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the spans in order, those that touch or overlap as one, also over the end of the week."""
    joined: list[tuple[int, int]] = []
    for begin_s, end_s in sorted(spans):
        if joined and begin_s <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_s))
        else:
            joined.append((begin_s, end_s))
    # What reaches into the next week swallows or lengthens the first ones.
    while len(joined) > 1 and joined[-1][1] - _WEEK_S >= joined[0][0]:
        _, end_s = joined.pop(0)
        joined[-1] = (joined[-1][0], max(joined[-1][1], end_s + _WEEK_S))
    if joined[-1][1] - joined[-1][0] >= _WEEK_S:
        return ((0, _WEEK_S),)
    return tuple(joined)


@dataclass(frozen=True)
class WindowsKind:
    """The type of `dms.window`, for the table of variables."""

    def parse(self, text: str) -> Value:
        """Return the text, which names windows; raises CommandError."""
        if len(text.encode("utf-8", "surrogatepass")) > MAX_WINDOWS_BYTES:
            raise CommandError(Code.OUT_OF_BOUNDS, f"The value is too long: {self.describe()}.")
        try:
            parse_windows(text)
        except BadWindowsError as error:
            raise CommandError(Code.BAD_ARGUMENT, f"{error}. An example: {EXAMPLE}") from None
        return text

    def check(self, value: Value) -> bool:
        """Tell whether it is such a text."""
        if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > MAX_WINDOWS_BYTES:
            return False
        try:
            parse_windows(value)
        except BadWindowsError:
            return False
        return True

    def describe(self) -> str:
        """Return the type in words."""
        return f"times of the week in UTC, such as '{EXAMPLE}'; empty: always"


# --- the decision -------------------------------------------------------------------------------------------------------------
FIRST_PAUSE_S: Final = 300.0
LONGEST_PAUSE_S: Final = float(_DAY_S)
LONGEST_UNREACHABLE_S: Final = 3600.0
CANCELLED_PAUSE_S: Final = 3600.0
JITTER: Final = 0.25
SPREAD_S: Final = 1800.0
"""So long after a window has opened all devices have begun; of a short window it is a quarter."""
FIRST_LOOK_S: Final = 600.0
"""So long after a start all devices have looked, however long the interval is."""
AGAIN_S: Final = 60.0
"""The longest wait between two decisions: settings and clock may have changed."""
BUSY_S: Final = 5.0


class Action(Enum):
    """What automatic mode does now."""

    WAIT = "wait"
    LOOK = "look"
    INSTALL = "install"
    GO_ON = "go on"
    RESTART = "restart"


class Decision(NamedTuple):
    """What to do, why, and when to decide again (seconds) if it is to wait."""

    action: Action
    reason: str
    again_s: float = AGAIN_S


@dataclass(frozen=True)
class Settings:
    """What the owner wants."""

    mode: str
    """`dms.auto`: off, check, install."""
    windows: Windows
    interval_s: float
    """`dms.interval`."""
    restarts: bool
    """`ota.reboot` is auto."""


@dataclass(frozen=True)
class Facts:
    """How things are now."""

    uptime_s: float
    utc: datetime | None
    """None: nobody knows what time it is. Then no window is open."""
    boot_good: bool
    """This boot was marked good and is not on trial."""
    busy: bool
    """An update runs, or the board is being restarted."""
    waits_for_restart: bool = False
    goes_on: bool = False
    """A step was confirmed, and the way leads on."""
    goes_on_by_itself: bool = False
    """That way began without a person."""


@dataclass(frozen=True)
class Track:
    """What automatic mode remembers of its tries, in RAM. `look_s` is on the uptime."""

    look_s: float
    tried_s: float = 0.0
    """When it last worked, on the same clock."""
    failures: int = 0
    spread: float = 0.0
    """This device's place among others, 0 to 1: when within the first part of a window it begins."""

    def succeeded(self, uptime_s: float, interval_s: float, chance: float) -> Track:
        """It worked: again after the interval. `chance`: 0 to 1, another each time."""
        return replace(self, look_s=uptime_s + _about(interval_s, chance), tried_s=uptime_s, failures=0)

    def cancelled(self, uptime_s: float, chance: float) -> Track:
        """A person did not want it now: not again before an hour or so."""
        return replace(self, look_s=uptime_s + _about(CANCELLED_PAUSE_S, chance), failures=max(self.failures, 1))

    def due(self, uptime_s: float, interval_s: float) -> bool:
        """Tell whether it is time, also if the interval has become shorter since."""
        shortened = not self.failures and uptime_s >= self.tried_s + interval_s * (1 + JITTER)
        return uptime_s >= self.look_s or (shortened and self.tried_s > 0)

    def failed(self, uptime_s: float, chance: float, *, unreachable: bool) -> Track:
        """It did not: again after a pause that doubles each time, to an hour without a server, else to a day."""
        most_s = LONGEST_UNREACHABLE_S if unreachable else LONGEST_PAUSE_S
        pause_s = min(FIRST_PAUSE_S * 2 ** min(self.failures, 20), most_s)
        return replace(self, look_s=uptime_s + _about(pause_s, chance), failures=self.failures + 1)


def first_track(uptime_s: float, interval_s: float, chance: float, spread: float) -> Track:
    """Return the track at a start: a fleet that got its power back at one time does not ask at one time."""
    return Track(uptime_s + min(interval_s, FIRST_LOOK_S) * chance, spread=spread)


def _about(seconds: float, chance: float) -> float:
    return seconds * (1 - JITTER + 2 * JITTER * chance)


def decide(settings: Settings, facts: Facts, track: Track) -> Decision:
    """Return what to do now. The first rule that applies counts; `docs/updates-policy.md` has them for people."""
    if not facts.boot_good:
        return Decision(Action.WAIT, "this boot is not good yet", BUSY_S)
    if facts.busy:
        return Decision(Action.WAIT, "an update is running", BUSY_S)
    due = track.due(facts.uptime_s, settings.interval_s)
    if facts.goes_on and not (facts.goes_on_by_itself and settings.mode != "install"):
        if facts.goes_on_by_itself and (closed := _closed(settings.windows, facts.utc, 0.0)) is not None:
            return closed
        soon = due or not track.failures
        return Decision(Action.GO_ON, "a step was installed") if soon else _until(track, facts, "the way goes on later")
    if settings.mode == "off":
        return Decision(Action.WAIT, "dms.auto is off")
    if facts.waits_for_restart:
        return _restart(settings, facts)
    if not due:
        return _until(track, facts, "it is not time to look again yet")
    if settings.mode == "check":
        return Decision(Action.LOOK, "it is time to look")
    return _closed(settings.windows, facts.utc, track.spread) or Decision(Action.INSTALL, "it is time to look")


def _restart(settings: Settings, facts: Facts) -> Decision:
    if settings.mode != "install" or not settings.restarts:
        return Decision(Action.WAIT, "an installed release waits for a person to restart")
    return _closed(settings.windows, facts.utc, 0.0) or Decision(Action.RESTART, "an installed release waits")


def _closed(windows: Windows, utc: datetime | None, spread: float) -> Decision | None:
    """Return the decision to wait for a window; None: one is open, and this device's turn in it has come."""
    if windows.always:
        return None
    if utc is None:
        return Decision(Action.WAIT, "the time is not known, so no window is open")
    now = windows.at(utc)
    if now is None:
        return Decision(Action.WAIT, "outside the windows", min(windows.opens_in_s(utc) + 1.0, AGAIN_S))
    turn_s = min(SPREAD_S, now.length_s / 4) * spread
    if now.since_s < turn_s:
        return Decision(Action.WAIT, "the window has just opened", min(turn_s - now.since_s + 1.0, AGAIN_S))
    return None


def _until(track: Track, facts: Facts, reason: str) -> Decision:
    return Decision(Action.WAIT, reason, min(max(track.look_s - facts.uptime_s, 1.0), AGAIN_S))
