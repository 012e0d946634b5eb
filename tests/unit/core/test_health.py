"""When a boot is good, and when it is given up."""

from dataclasses import replace

import pytest

from zentrid.core.health import PULSE_LIMIT_S, Facts, Judge, Policy, Verdict, faults_decay, may_feed_watchdog

POLICY = Policy(healthy_after_s=10, deadline_s=120, commit_offline=False)
FINE = Facts()


def decide(facts_at, policy=POLICY):
    """Return the verdicts for a list of (second, facts)."""
    judge, verdicts = Judge(policy), []
    for now_s, facts in facts_at:
        judge, decision = judge.step(facts, now_s)
        verdicts.append(decision.verdict)
    return verdicts


def test_good_after_everything_held_long_enough():
    assert decide([(0, FINE), (9.9, FINE), (10, FINE)]) == [Verdict.WAIT, Verdict.WAIT, Verdict.MARK_GOOD]


def test_a_break_starts_the_count_anew():
    bad = replace(FINE, interfaces="the console does not listen")
    assert decide([(0, FINE), (9, bad), (10, FINE), (19, FINE), (20, FINE)])[-2:] == [Verdict.WAIT, Verdict.MARK_GOOD]


@pytest.mark.parametrize(
    "facts",
    [
        replace(FINE, data="not mounted"), replace(FINE, settings="not loaded"), replace(FINE, interfaces="silent"),
        replace(FINE, application="down"), replace(FINE, hooks=("10-x: no",)),
    ],
)  # fmt: skip
def test_each_fact_keeps_a_boot_from_being_good(facts):
    assert Verdict.MARK_GOOD not in decide([(t, facts) for t in range(0, 1000, 10)])


def test_a_first_boot_must_reach_the_server():
    first = replace(FINE, first_boot=True)
    assert decide([(0, first), (60, first)]) == [Verdict.WAIT, Verdict.WAIT]
    reached = replace(first, dms_reached=True)
    assert decide([(0, first), (20, reached), (30, reached)])[-1] is Verdict.MARK_GOOD


def test_unless_committing_offline_is_allowed():
    first = replace(FINE, first_boot=True)
    offline = replace(POLICY, commit_offline=True)
    assert decide([(0, first), (10, first)], offline)[-1] is Verdict.MARK_GOOD


def test_a_slot_on_trial_is_given_up_as_well_but_needs_no_server():
    lost = replace(FINE, on_trial=True, data="not mounted")
    assert decide([(119, lost), (120, lost)]) == [Verdict.WAIT, Verdict.GIVE_UP]
    assert decide([(0, replace(lost, data=None)), (10, replace(lost, data=None))])[-1] is Verdict.MARK_GOOD


def test_a_first_boot_that_is_not_good_in_time_is_given_up_and_says_why():
    facts = replace(FINE, first_boot=True, dms_reached=True, hooks=("health hook 10-pump: no answer",))
    judge, decision = Judge(POLICY).step(facts, 119)
    assert decision.verdict is Verdict.WAIT
    judge, decision = judge.step(facts, 120)
    assert decision.verdict is Verdict.GIVE_UP
    assert "10-pump: no answer" in decision.reason


def test_any_other_boot_is_never_given_up():
    facts = replace(FINE, hooks=("no",))
    assert set(decide([(t, facts) for t in range(0, 100_000, 1000)])) == {Verdict.WAIT}


def test_a_boot_that_holds_at_the_deadline_is_not_given_up():
    first = replace(FINE, first_boot=True, dms_reached=True)
    assert decide([(115, first), (121, first), (125, first)])[1:] == [Verdict.WAIT, Verdict.MARK_GOOD]


def test_a_good_boot_stays_good():
    facts = replace(FINE, good_already=True, first_boot=True, hooks=("no",))
    assert set(decide([(t, facts) for t in range(0, 1000, 100)])) == {Verdict.WAIT}


def test_watchdog_starves_only_when_nobody_could_talk_to_the_device():
    deaf = replace(FINE, deaf=True)
    assert may_feed_watchdog(deaf, 10, 30)
    assert not may_feed_watchdog(deaf, 30, 30)
    assert may_feed_watchdog(replace(FINE, hooks=("no",), data="gone"), 10_000, 30)
    assert may_feed_watchdog(replace(FINE, interfaces="the serial port is gone"), 10_000, 30), "SSH still works"


def test_watchdog_starves_when_threads_do_not_get_through():
    assert may_feed_watchdog(FINE, 1000, 30, pulse_age_s=PULSE_LIMIT_S - 1)
    assert not may_feed_watchdog(FINE, 1000, 30, pulse_age_s=PULSE_LIMIT_S)


def test_faults_decay_after_the_time_set_and_never_when_that_is_zero():
    assert faults_decay(100, 200, 100)
    assert not faults_decay(100, 199, 100)
    assert not faults_decay(None, 10_000, 100), "not healthy yet"
    assert not faults_decay(100, 10_000_000, 0)
