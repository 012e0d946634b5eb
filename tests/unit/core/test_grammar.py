"""The command line's grammar: quotes, escapes, options, and the right code for each mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.framing import Code
from zentrid.core.grammar import (
    MAX_LINE_BYTES,
    MAX_WORDS,
    Argument,
    CommandError,
    Option,
    Signature,
    quote,
    split_words,
)

OTA = Signature(
    (Argument("action", "what to do", optional=True, choices=("cancel",)),),
    (Option("f", "force"), Option("c", "check"), Option("b", "version", "version")),
)
CLAIM = Signature((Argument("user", "your name"), Argument("password", "your password", secret=True)))
SET = Signature((Argument("name", "a name"), Argument("value", "a value", many=True)))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  \t ", []),
        ("get  all", ["get", "all"]),
        ('set n "two words"', ["set", "n", "two words"]),
        ('set n ""', ["set", "n", ""]),
        ('a"b c"d', ["ab cd"]),
        (r"a\ b", ["a b"]),
        (r'"say \"hi\" \\"', ['say "hi" \\']),
        (r"C:\temp \x", ["C:\\temp", "\\x"]),
        (r"gr\xc3\xbcn", ["grün"]),
        (r"\x41\x20b", ["A b"]),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    assert split_words(line) == words


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('set n "open', Code.PARSE_ERROR),
        (r"a\xff", Code.PARSE_ERROR),
        ("a\udc80", Code.PARSE_ERROR),
        ("x " * (MAX_WORDS + 1), Code.PARSE_ERROR),
        ("x" * (MAX_LINE_BYTES + 1), Code.BUFFER_OVERFLOW),
        ("ü" * (MAX_LINE_BYTES // 2 + 1), Code.BUFFER_OVERFLOW),
    ],
)
def test_bad_lines(line: str, code: Code) -> None:
    with pytest.raises(CommandError) as caught:
        split_words(line)
    assert caught.value.code is code
    assert str(caught.value).endswith(".")


def test_longest_line_is_taken() -> None:
    assert split_words("x" * MAX_LINE_BYTES) == ["x" * MAX_LINE_BYTES]


@given(st.text())
def test_any_text_gives_words_or_a_command_error(line: str) -> None:
    code: Code | None = None
    try:
        words = split_words(line)
    except CommandError as error:
        code = error.code
    assert code in (None, Code.PARSE_ERROR, Code.BUFFER_OVERFLOW)
    if code is None:
        assert len(words) <= MAX_WORDS
        assert sum(map(len, words)) <= len(line)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=10))
def test_quoting_round_trip(words: list[str]) -> None:
    assert split_words(" ".join(map(quote, words))) == words


def test_options_in_any_order_and_together() -> None:
    for words in (["-f", "-b", "1.2.3", "-c"], ["-fc", "-b1.2.3"], ["-cfb", "1.2.3"]):
        given_ = OTA.parse(words, "ota")
        assert given_.options == {"f": "", "c": "", "b": "1.2.3"}
        assert given_.flag("f")
    assert not OTA.parse([], "ota").flag("f")
    assert OTA.parse(["cancel"], "ota").values == {"action": "cancel"}


@pytest.mark.parametrize(
    ("signature", "words", "code", "part"),
    [
        (CLAIM, [], Code.TOO_FEW_ARGUMENTS, "needs user"),
        (CLAIM, ["me"], Code.TOO_FEW_ARGUMENTS, "needs password"),
        (CLAIM, ["me", "a", "b"], Code.TOO_MANY_ARGUMENTS, "double quotes"),
        (OTA, ["-x"], Code.UNKNOWN_OPTION, "no option -x"),
        (OTA, ["-b"], Code.TOO_FEW_ARGUMENTS, "-b needs a version"),
        (OTA, ["stop"], Code.BAD_ARGUMENT, "cancel"),
        (OTA, ["--", "-f"], Code.BAD_ARGUMENT, "cancel"),
        (SET, ["n"], Code.TOO_FEW_ARGUMENTS, "needs value"),
    ],
)
def test_mistakes_have_their_codes(signature: Signature, words: list[str], code: Code, part: str) -> None:
    with pytest.raises(CommandError, match=part) as caught:
        signature.parse(words, "it")
    assert caught.value.code is code


def test_a_command_without_options_takes_a_dash_as_text() -> None:
    assert CLAIM.parse(["me", "-secret"], "claim").values["password"] == "-secret"
    assert SET.parse(["n", "-5"], "set").rest == ("-5",)


def test_the_mistake_never_shows_a_secret() -> None:
    with pytest.raises(CommandError) as caught:
        CLAIM.parse(["me", "hunter2", "hunter2"], "claim")
    assert "hunter2" not in str(caught.value)


def test_usage_line() -> None:
    assert OTA.usage("ota") == "ota [-f] [-c] [-b version] [cancel]"
    assert CLAIM.usage("dms claim") == "dms claim <user> <password>"


@given(st.lists(st.text(max_size=8), max_size=12))
def test_any_words_give_arguments_or_a_command_error(words: list[str]) -> None:
    for signature in (OTA, CLAIM, SET):
        code: Code | None = None
        try:
            arguments = signature.parse(words, "it")
        except CommandError as error:
            code = error.code
        assert code is None or Code.TOO_FEW_ARGUMENTS <= code <= Code.BAD_ARGUMENT
        if code is None:
            assert len(arguments.values) + len(arguments.rest) <= len(words)
