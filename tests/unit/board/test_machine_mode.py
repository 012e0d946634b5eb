"""The parser of machine mode: whole frames out of any pieces, with any noise between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.board_driver.errors import BoardAssertionError
from scripts.board_driver.machine_mode import MAX_NOISE_BYTES, Answer, Frame, MachineParser, answer_of, check_line

NOISE = st.binary(max_size=60).map(lambda data: bytes(byte & 0x7F for byte in data).translate(None, b"RSL"))
FRAMES = st.builds(Frame, st.sampled_from("RSL"), st.integers(0, 9), st.binary(max_size=300))


def wire(frame: Frame) -> bytes:
    return f"{frame.kind}{frame.code}{len(frame.body):05d}\r\n".encode() + frame.body


@given(st.lists(st.tuples(NOISE, FRAMES), max_size=8), NOISE, st.lists(st.integers(1, 50), min_size=1))
def test_any_frames_in_any_noise_cut_anywhere(parts, last_noise, cuts):
    stream = b"".join(noise + wire(frame) for noise, frame in parts) + last_noise
    parser = MachineParser()
    found, at, turn = [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        found += parser.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == [frame for _, frame in parts]
    assert parser.noise == b"".join(noise for noise, _ in parts) + last_noise


@given(st.binary(max_size=2000))
def test_no_bytes_break_it(data):
    parser = MachineParser()
    parser.feed(data)
    # Whatever the bytes were, enough of them end any frame they may have begun.
    parser.feed(b"\0" * 100_010)
    assert parser.feed(b"R000003\r\nok\n")[-1] == Frame("R", 0, b"ok\n")


def test_a_body_that_looks_like_a_header_is_a_body():
    body = b"R000004\r\nabcd"
    assert MachineParser().feed(wire(Frame("R", 0, body))) == [Frame("R", 0, body)]


@pytest.mark.parametrize("text", [b"R00009\r\n", b"X000009\r\n", b"R000009\n", b"r000009\r\n", b"R0 0009\r\n"])
def test_what_is_almost_a_header_is_noise(text):
    parser = MachineParser()
    assert parser.feed(text) == []
    assert parser.noise == text


def test_noise_is_kept_up_to_a_limit():
    parser = MachineParser()
    for _ in range(10):
        parser.feed(b"x" * (MAX_NOISE_BYTES // 4))
    assert len(parser.noise) <= MAX_NOISE_BYTES + 8


def test_an_answer_has_its_log_and_plain_line_ends():
    frames = [Frame("L", 0, b"why\r\n"), Frame("S", 1, b"Command failed\r\nmore\r\n")]
    assert answer_of(frames) == Answer(1, "Command failed\nmore", ("why",), safe_mode=True)
    with pytest.raises(ValueError, match="no answer"):
        answer_of(frames[:1])
    with pytest.raises(BoardAssertionError, match=r"code 1 \(failed\): Command failed\nmore; why"):
        answer_of(frames).expect_ok()
    assert answer_of([Frame("R", 0, b"")]).expect_ok() == ""


@pytest.mark.parametrize("line", ["", "   ", "a\nb", "a\rb", "a\x03", "x" * 2001, "ü" * 1001])
def test_a_line_that_is_not_one_line_is_refused(line):
    with pytest.raises(ValueError, match="one line"):
        check_line(line)


def test_a_line_is_typed_with_its_end():
    assert check_line("set system.name Küche") == "set system.name Küche\r\n".encode()
