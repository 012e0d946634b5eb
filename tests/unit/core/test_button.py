"""The factory-reset button: what counts as a long press, and what does not."""

from __future__ import annotations

import pytest

from zentrid.core.button import BOUNCE_S, HOLD_S, Button, Seen

Edge = tuple[float, bool]


def play(edges: list[Edge], until_s: float, step_s: float = 0.25) -> list[Seen]:
    """Feed edges (time, rising) and look at the button every `step_s`; return what it asked for, without repetitions."""
    button, seen = Button(), [Seen.NOTHING]
    waiting, now_s = sorted(edges), 0.0
    while now_s <= until_s:
        while waiting and waiting[0][0] <= now_s:
            at_s, rising = waiting.pop(0)
            button = button.edge(rising=rising, at_s=at_s)
        button, one = button.step(now_s)
        if one is not seen[-1]:
            seen.append(one)
        now_s += step_s
    return seen


def test_a_long_press_asks_once() -> None:
    assert play([(1.0, True)], 60) == [Seen.NOTHING, Seen.HELD, Seen.RESET, Seen.NOTHING]


def test_it_takes_the_whole_time() -> None:
    assert Seen.RESET not in play([(1.0, True)], 1.0 + HOLD_S - 0.01, step_s=0.01)
    assert Seen.RESET not in play([(1.0, True), (1.0 + HOLD_S - 0.1, False)], 60)


def test_two_short_presses_do_not_add_up() -> None:
    assert Seen.RESET not in play([(0, True), (6, False), (6.1, True), (12, False)], 60)


def test_a_button_that_was_down_before_is_ignored_until_it_was_let_go() -> None:
    assert play([(5.0, False)], 60) == [Seen.NOTHING]
    assert play([(5.0, False), (6.0, True)], 60)[-2] is Seen.RESET


@pytest.mark.parametrize("gap_s", [0.001, BOUNCE_S - 0.002])
def test_a_bounce_does_not_end_a_press(gap_s: float) -> None:
    edges = [(1.0, True)] + [e for t in (1.1, 4.0, 9.0) for e in ((t, False), (t + gap_s, True))]
    assert Seen.RESET in play(edges, 1.0 + HOLD_S + 0.05, step_s=0.005), "the time goes on from the first touch"


def test_a_gap_that_is_no_bounce_ends_a_press() -> None:
    assert Seen.RESET not in play([(1.0, True), (6.0, False), (6.0 + 2 * BOUNCE_S, True), (15.0, False)], 60, 0.005)


def test_a_spike_is_no_press() -> None:
    assert play([(1.0, True), (1.0 + BOUNCE_S / 2, False)], 20, step_s=0.01) == [Seen.NOTHING]


def test_a_press_is_judged_by_its_own_time_however_late_it_is_read() -> None:
    late = Button().edge(rising=True, at_s=1.0).edge(rising=False, at_s=2.0)
    assert late.step(60.0) == (Button(), Seen.NOTHING)
    button, seen = Button().edge(rising=True, at_s=1.0).edge(rising=False, at_s=1.0 + HOLD_S).step(60.0)
    assert seen is Seen.RESET
    assert button.step(61.0) == (Button(), Seen.NOTHING)


def test_a_release_that_was_lost_makes_no_long_press() -> None:
    button = Button().edge(rising=True, at_s=1.0).level(high=False)
    assert button.step(60.0) == (Button(), Seen.NOTHING)
    assert Button().level(high=True) == Button(), "a level alone is no press"


def test_how_long_is_left() -> None:
    assert Button().left_s(5.0) == HOLD_S
    assert Button().edge(rising=True, at_s=1.0).left_s(4.0) == HOLD_S - 3.0
