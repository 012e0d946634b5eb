"""The door's decision about a patch: a table."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dms_server.clock import now
from dms_server.patches.decide import FAILED_FOR, Known, Verdict, decide, retry_after_s
from dms_server.patches.queue import retry_at

AT = now()
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        (None, Verdict.QUEUE),
        (Known("queued"), Verdict.WAIT),
        (Known("making"), Verdict.WAIT),
        (Known("queued", asked_at=AT - 119 * SECOND), Verdict.WAIT),
        (Known("queued", asked_at=AT - 120 * SECOND), Verdict.FULL),
        (Known("making", asked_at=AT - 121 * SECOND), Verdict.FULL),
        (Known("queued", not_before=AT + SECOND), Verdict.FULL),
        (Known("queued", not_before=AT - SECOND), Verdict.WAIT),
        (Known("ready", asked_at=AT - 999 * SECOND), Verdict.PATCH),
        (Known("larger"), Verdict.FULL),
        (Known("larger", ended_at=AT - FAILED_FOR), Verdict.FULL),
        (Known("failed", ended_at=AT), Verdict.FULL),
        (Known("failed", ended_at=AT - FAILED_FOR), Verdict.QUEUE),
        (Known("failed"), Verdict.FULL),
    ],
)
def test_decisions(known: Known | None, verdict: Verdict) -> None:
    assert decide(known, AT, 120) is verdict


def test_a_device_is_never_asked_to_come_back_after_its_wait() -> None:
    assert retry_after_s(None, AT, 120) == 5
    assert retry_after_s(AT - 117 * SECOND, AT, 120) == 3
    assert retry_after_s(AT - 130 * SECOND, AT, 120) == 1
    assert retry_after_s(None, AT, 0) == 1


def test_pauses_double_and_end() -> None:
    pauses = [retry_at(tries, 4, 30, AT) for tries in (1, 2, 3, 4)]
    assert pauses == [AT + 30 * SECOND, AT + 60 * SECOND, AT + 120 * SECOND, None]
