"""Windows of the week, and the decision of automatic mode: each rule, and days of a device whose clock jumps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.schedule import (
    AGAIN_S,
    DAYS,
    EXAMPLE,
    FIRST_LOOK_S,
    LONGEST_PAUSE_S,
    LONGEST_UNREACHABLE_S,
    MAX_WINDOWS,
    Action,
    BadWindowsError,
    Facts,
    Settings,
    Track,
    Windows,
    WindowsKind,
    decide,
    first_track,
    parse_windows,
)

MONDAY = datetime(2026, 11, 2, tzinfo=UTC)


def at(day: str, time: str) -> datetime:
    hours, minutes = time.split(":")
    return MONDAY + timedelta(days=DAYS.index(day), hours=int(hours), minutes=int(minutes))


# --- windows ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("22:00-04:00", ["mon 22:00", "tue 03:59", "mon 00:00", "sun 23:59"], ["mon 21:59", "mon 04:00", "wed 12:00"]),
        ("01:00-05:00", ["sat 01:00", "sat 04:59"], ["sat 05:00", "sat 00:59"]),
        ("sat,sun 01:00-05:00", ["sat 01:00", "sun 04:59"], ["mon 01:00", "fri 02:00", "sun 05:00"]),
        ("sun 22:00-04:00", ["sun 22:00", "mon 03:59"], ["sun 03:00", "mon 04:00", "mon 22:00"]),
        ("fri-mon 10:00-11:00", ["fri 10:00", "sat 10:30", "sun 10:59", "mon 10:00"], ["tue 10:30", "thu 10:30"]),
        ("mon-wed,sat 10:00-24:00", ["mon 23:59", "sat 10:00"], ["thu 12:00", "sun 00:00"]),
        ("mon 22:00-24:00; tue 00:00-02:00", ["mon 23:59", "tue 00:00", "tue 01:59"], ["tue 02:00", "wed 00:30"]),
        (
            "mon-fri 22:00-04:00; sat,sun 01:00-05:00",
            ["sat 03:00", "sat 04:59", "fri 23:00"],
            ["sun 00:30", "sat 23:00"],
        ),
    ],
)
def test_what_is_inside(text: str, inside: list[str], outside: list[str]) -> None:
    windows = parse_windows(text)
    for moment in inside:
        assert windows.at(at(*moment.split())) is not None, moment
        assert windows.opens_in_s(at(*moment.split())) == 0
    for moment in outside:
        assert windows.at(at(*moment.split())) is None, moment
        assert windows.opens_in_s(at(*moment.split())) > 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("22-04", "is no window"),
        ("22:00", "is no window"),
        ("24:00-04:00", "is no window"),
        ("22:00-24:01", "is no window"),
        ("22:60-23:00", "is no window"),
        ("9:00-10:00", "is no window"),
        ("22:00 - 04:00", "is no window"),
        ("Mon 22:00-23:00", "is no window"),
        ("22:00-04:00,05:00-06:00", "is no window"),
        ("22:00-04:00;", "is no window"),
        (";", "is no window"),
        ("mon22:00-23:00", "is no window"),
        ("mon, tue 22:00-23:00", "is no window"),
        ("1٢:00-13:00", "is no window"),
        ("xyz 22:00-23:00", "'xyz' is no day"),
        ("mon-tue-wed 22:00-23:00", "is no day"),
        ("10:00-10:00", "begins when it ends"),
        ("; ".join(["10:00-11:00"] * (MAX_WINDOWS + 1)), "9 windows, at most 8"),
    ],
)
def test_bad_text_is_refused_with_an_example(text: str, problem: str) -> None:
    with pytest.raises(BadWindowsError, match=problem):
        parse_windows(text)
    with pytest.raises(CommandError) as caught:
        WindowsKind().parse(text)
    assert caught.value.code is Code.BAD_ARGUMENT
    assert str(caught.value).endswith(f"An example: {EXAMPLE}")
    assert not WindowsKind().check(text)


def test_too_long_and_of_another_type() -> None:
    with pytest.raises(CommandError) as caught:
        WindowsKind().parse("10:00-11:00;" * 30)
    assert caught.value.code is Code.OUT_OF_BOUNDS
    assert not WindowsKind().check("10:00-11:00;" * 30)
    assert not WindowsKind().check(7)
    assert WindowsKind().check(EXAMPLE)
    assert WindowsKind().check("")
    assert WindowsKind().check("\udcff") is False


@pytest.mark.parametrize(
    "text", ["", "  ", "00:00-24:00", "00:00-12:00; 12:00-24:00", "mon-sun 06:00-24:00; 00:00-06:00"]
)
def test_always(text: str) -> None:
    assert parse_windows(text).always


def test_the_time_zone_of_a_moment_does_not_matter() -> None:
    moment = at("mon", "22:30")
    windows = parse_windows("mon 22:00-23:00")
    assert windows.at(moment.astimezone(timezone(timedelta(hours=9)))) == windows.at(moment) is not None


_times = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda t: f"{t[0]:02}:{t[1]:02}")
_days = st.lists(st.sampled_from(DAYS), min_size=1, max_size=7, unique=True).map(",".join) | st.tuples(
    st.sampled_from(DAYS), st.sampled_from(DAYS)
).map("-".join)
_window = st.tuples(st.none() | _days, _times, _times | st.just("24:00")).filter(lambda w: w[1] != w[2])


def minutes_of(windows: list[tuple[str | None, str, str]]) -> set[int]:
    """The minutes of the week inside, counted one by one: the slow and obvious way."""
    inside = set()
    for days, begin, end in windows:
        if days is None:
            numbers = list(range(7))
        elif "-" in days:
            first, last = (DAYS.index(day) for day in days.split("-"))
            numbers = [first]
            while numbers[-1] != last:
                numbers.append((numbers[-1] + 1) % 7)
        else:
            numbers = [DAYS.index(day) for day in days.split(",")]
        for number in numbers:
            minute = int(begin[:2]) * 60 + int(begin[3:])
            last_minute = int(end[:2]) * 60 + int(end[3:])
            length = (last_minute - minute) % 1440 or 1440
            inside |= {(number * 1440 + minute + step) % 10080 for step in range(length)}
    return inside


@effort(max_examples=60)
@given(st.lists(_window, min_size=1, max_size=4))
def test_windows_are_the_minutes_that_they_name(parts: list[tuple[str | None, str, str]]) -> None:
    text = ";".join(f"{days} {begin}-{end}" if days else f"{begin}-{end}" for days, begin, end in parts)
    windows, inside = parse_windows(text), minutes_of(parts)
    assert windows.always == (len(inside) == 10080)
    if windows.always:
        return
    edges = {
        minute + step
        for minute in range(10080)
        if (minute in inside) != ((minute + 1) % 10080 in inside)
        for step in (0, 1)
    }
    for minute in sorted(edges)[:60]:
        moment = MONDAY + timedelta(minutes=minute, seconds=30)
        now = windows.at(moment)
        assert (now is not None) == (minute % 10080 in inside), (text, minute)
        if now is None:
            opens = moment + timedelta(seconds=windows.opens_in_s(moment))
            assert windows.at(opens) is not None
            assert windows.at(opens - timedelta(seconds=1)) is None
        else:
            assert windows.at(moment - timedelta(seconds=now.since_s)) is not None
            assert windows.at(moment - timedelta(seconds=now.since_s + 1)) is None
            assert windows.at(moment + timedelta(seconds=now.length_s - now.since_s)) is None


@given(st.text(max_size=40) | st.text(alphabet="montuewedsa0123456789:-,; ", max_size=40))
def test_any_text_is_either_windows_or_refused(text: str) -> None:
    try:
        windows = parse_windows(text)
    except BadWindowsError:
        assert not WindowsKind().check(text)
    else:
        assert isinstance(windows, Windows)


# --- the decision -------------------------------------------------------------------------------------------------------------
NIGHT = parse_windows("22:00-04:00")
INSTALL = Settings("install", Windows(), 300, restarts=True)
NOW = Facts(uptime_s=1000.0, utc=at("tue", "12:00"), boot_good=True, busy=False)
DUE = Track(look_s=900.0)
LATER = Track(look_s=1500.0)
MIDNIGHT = replace(NOW, utc=at("wed", "00:00"))


@pytest.mark.parametrize(
    ("settings", "facts", "track", "action", "reason"),
    [
        (INSTALL, NOW, DUE, Action.INSTALL, "it is time"),
        (INSTALL, NOW, LATER, Action.WAIT, "not time to look again"),
        (INSTALL, replace(NOW, boot_good=False), DUE, Action.WAIT, "not good yet"),
        (INSTALL, replace(NOW, busy=True), DUE, Action.WAIT, "is running"),
        (replace(INSTALL, mode="off"), NOW, DUE, Action.WAIT, "dms.auto is off"),
        (replace(INSTALL, mode="check"), NOW, DUE, Action.LOOK, "time to look"),
        (replace(INSTALL, mode="check", windows=NIGHT), NOW, DUE, Action.LOOK, "time to look"),
        (replace(INSTALL, mode="check"), NOW, LATER, Action.WAIT, "not time"),
        (replace(INSTALL, windows=NIGHT), NOW, DUE, Action.WAIT, "outside the windows"),
        (replace(INSTALL, windows=NIGHT), MIDNIGHT, DUE, Action.INSTALL, "it is time"),
        (replace(INSTALL, windows=NIGHT), replace(NOW, utc=None), DUE, Action.WAIT, "the time is not known"),
        (INSTALL, replace(NOW, utc=None), DUE, Action.INSTALL, "it is time"),
        # an installed release that waits
        (INSTALL, replace(NOW, waits_for_restart=True), LATER, Action.RESTART, "waits"),
        (replace(INSTALL, restarts=False), replace(NOW, waits_for_restart=True), DUE, Action.WAIT, "a person"),
        (replace(INSTALL, mode="check"), replace(NOW, waits_for_restart=True), DUE, Action.WAIT, "a person"),
        (replace(INSTALL, windows=NIGHT), replace(NOW, waits_for_restart=True), DUE, Action.WAIT, "outside"),
        (replace(INSTALL, windows=NIGHT), replace(MIDNIGHT, waits_for_restart=True), DUE, Action.RESTART, "waits"),
        (
            replace(INSTALL, windows=NIGHT),
            replace(NOW, utc=None, waits_for_restart=True),
            DUE,
            Action.WAIT,
            "not known",
        ),
        # a way that leads on
        (replace(INSTALL, mode="off", windows=NIGHT), replace(NOW, goes_on=True), LATER, Action.GO_ON, "a step"),
        (INSTALL, replace(NOW, goes_on=True), replace(LATER, failures=1), Action.WAIT, "goes on later"),
        (INSTALL, replace(NOW, goes_on=True, boot_good=False), DUE, Action.WAIT, "not good"),
        (INSTALL, replace(NOW, goes_on=True, goes_on_by_itself=True), LATER, Action.GO_ON, "a step"),
        (
            replace(INSTALL, windows=NIGHT),
            replace(NOW, goes_on=True, goes_on_by_itself=True),
            DUE,
            Action.WAIT,
            "outside",
        ),
        (replace(INSTALL, mode="off"), replace(NOW, goes_on=True, goes_on_by_itself=True), DUE, Action.WAIT, "is off"),
    ],
)
def test_each_rule(settings: Settings, facts: Facts, track: Track, action: Action, reason: str) -> None:
    decision = decide(settings, facts, track)
    assert decision.action is action
    assert reason in decision.reason
    assert 0 < decision.again_s <= AGAIN_S


def test_devices_begin_one_after_the_other_when_a_window_opens() -> None:
    settings = replace(INSTALL, windows=NIGHT)
    opened = at("tue", "22:00")
    begun = []
    for place in range(100):
        track = Track(0.0, spread=place / 100)
        begun.append(
            next(
                second
                for second in range(0, 6 * 3600, 30)
                if decide(settings, replace(NOW, utc=opened + timedelta(seconds=second)), track).action
                is Action.INSTALL
            )
        )
    assert begun[0] == 0
    assert 1700 < begun[-1] <= 1800
    assert max(begun.count(second) for second in begun) <= 3
    short = replace(settings, windows=parse_windows("tue 22:00-22:04"))
    late = replace(NOW, utc=opened + timedelta(seconds=61))
    assert decide(short, late, Track(0.0, spread=1.0)).action is Action.INSTALL, "a short window is not slept through"


@pytest.mark.parametrize(("unreachable", "longest_s"), [(False, LONGEST_PAUSE_S), (True, LONGEST_UNREACHABLE_S)])
def test_failures_grow_from_minutes_to_a_bound_and_success_forgets_them(unreachable: bool, longest_s: float) -> None:
    track, pauses = Track(0.0), []
    for _ in range(40):
        track = track.failed(1000.0, 0.5, unreachable=unreachable)
        pauses.append(track.look_s - 1000.0)
    assert pauses[0] == 300
    assert pauses == sorted(pauses)
    assert pauses[-1] == longest_s
    assert len(set(pauses)) > 3
    assert track.succeeded(1000.0, 300, 0.5).failed(1000.0, 0.5, unreachable=unreachable).look_s == 1300


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 30))
def test_no_pause_is_the_same_for_all(one: float, other: float, failures: int) -> None:
    track = Track(0.0, failures=failures)
    first, second = (track.failed(0.0, chance, unreachable=False).look_s for chance in (one, other))
    assert abs(first - second) == pytest.approx(abs(one - other) * 0.5 * first / (0.75 + 0.5 * one))
    assert 0.75 * 300 <= first <= 1.25 * LONGEST_PAUSE_S
    assert 0 <= first_track(50.0, 86_400, one, other).look_s - 50.0 <= FIRST_LOOK_S


def test_a_shorter_interval_counts_at_once() -> None:
    track = Track(0.0).succeeded(1000.0, 86_400, 0.5)
    assert not track.due(2000.0, 86_400)
    assert track.due(2000.0, 300)
    assert not track.failed(1000.0, 0.5, unreachable=False).due(1200.0, 60), "but a failure's pause does"


def test_a_person_who_cancelled_is_left_alone_for_a_while() -> None:
    track = Track(0.0).cancelled(1000.0, 0.0)
    assert not track.due(1000.0 + 2600, 10)
    assert track.due(1000.0 + 2701, 10)


class World:
    """A device in a simulation: `uptime` only grows, `utc` may be anything."""

    def __init__(self, settings: Settings, start: datetime, chances: list[float]) -> None:
        self.settings = settings
        self.uptime_s = 0.0
        self.offset = start
        self.chances = chances
        self.track = first_track(0.0, settings.interval_s, self.chance(), self.chance())
        self.tries: list[tuple[float, datetime]] = []
        self.works = True

    def chance(self) -> float:
        self.chances.append(self.chances.pop(0))
        return self.chances[-1]

    @property
    def utc(self) -> datetime:
        return self.offset + timedelta(seconds=self.uptime_s)

    def live(self, seconds: float) -> None:
        end_s = self.uptime_s + seconds
        while self.uptime_s < end_s:
            decision = decide(self.settings, Facts(self.uptime_s, self.utc, boot_good=True, busy=False), self.track)
            if decision.action is Action.INSTALL:
                self.tries.append((self.uptime_s, self.utc))
                if self.works:
                    self.track = self.track.succeeded(self.uptime_s, self.settings.interval_s, self.chance())
                else:
                    self.track = self.track.failed(self.uptime_s, self.chance(), unreachable=False)
                self.uptime_s += 5
            else:
                assert decision.again_s > 0, "a busy loop"
                self.uptime_s += decision.again_s


@effort(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(-20_000, 20_000), st.booleans()), min_size=1, max_size=6),
    st.lists(st.floats(0, 1), min_size=3, max_size=8),
    st.sampled_from(["", "22:00-04:00", "sat,sun 01:00-05:00"]),
)
def test_days_with_a_clock_that_jumps(jumps: list[tuple[int, int, bool]], chances: list[float], text: str) -> None:
    """Never outside a window, never more often than the interval, never a day of failures with many tries."""
    world = World(Settings("install", parse_windows(text), 600, restarts=True), at("mon", "12:00"), list(chances))
    for hours, jump_hours, works in jumps:
        world.works = works
        before_s, count = world.uptime_s, len(world.tries)
        world.live(hours * 3600)
        if not works and hours >= 24:
            assert len(world.tries) - count <= 12 * (1 + (world.uptime_s - before_s) / 86_400)
        world.offset += timedelta(hours=jump_hours)
    windows = world.settings.windows
    for _, moment in world.tries:
        assert windows.always or windows.at(moment) is not None
    spacing = [later[0] - earlier[0] for earlier, later in zip(world.tries, world.tries[1:], strict=False)]
    assert all(pause_s >= 0.75 * 300 - 1e-6 for pause_s in spacing)


@pytest.mark.parametrize("text", ["", "22:00-04:00", "sun 23:00-01:00", "03:00-03:05"])
def test_a_week_without_trouble_always_has_its_update(text: str) -> None:
    world = World(Settings("install", parse_windows(text), 3600, restarts=True), at("mon", "12:00"), [0.99, 0.7])
    world.live(8 * 86_400)
    assert world.tries
