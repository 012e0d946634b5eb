"""What the network probe tells, read as strictly as if a stranger had written it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.probes import (
    MAX_LINE_BYTES,
    Failed,
    Found,
    Lost,
    News,
    ProbeError,
    Reply,
    parse_news,
    summary,
    to_line,
)


@pytest.mark.parametrize(
    "news", [Found("10.0.2.2"), Found("fe80::1%eth0"), Found("2001:db8::7"), Reply(0.25), Reply(1999.5), Lost(), Failed("No.")]
)  # fmt: skip
def test_news_survive_being_written(news: News) -> None:
    assert parse_news(to_line(news)) == news


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"found\n", b"found x\n", b"found 1.2.3\n", b"found 1.2.3.4\x1b[2J\n", b"found ::\x1b\n", b"reply\n",
     b"reply nan\n", b"reply 1e9\n", b"reply -1\n", b"reply 999999\n", b"lost 1\n", b"failed\n", b"FOUND 1.2.3.4\n",
     b"\xff\xfe\n"],
)  # fmt: skip
def test_other_lines_are_refused(line: bytes) -> None:
    with pytest.raises(ProbeError, match="inside the device"):
        parse_news(line)


@given(st.text(max_size=2000))
def test_a_sentence_fits_and_obeys_no_terminal(sentence: str) -> None:
    line = to_line(Failed(sentence))
    assert len(line) <= MAX_LINE_BYTES
    assert line.count(b"\n") == 1
    assert line.decode()[:-1].isprintable()


def test_summaries() -> None:
    assert summary("a", [Reply(1.26)]) == "Ping reply in 1.3 ms"
    assert summary("a", [Reply(1), Lost(), Reply(4)]) == "2 of 3 answered; 1.0/2.5/4.0 ms (least, mean, most)"
    with pytest.raises(ProbeError, match=r"a does not answer \(waited 4 s\)"):
        summary("a", [Lost(), Lost()])
    with pytest.raises(ProbeError):
        summary("a", [])
