"""Text from outside, fit for a terminal."""

from zentrid.core.text import printable


def test_what_a_terminal_would_act_on_is_replaced():
    assert printable("\x1b[31mred\x07\u202e\r\n") == "?[31mred????"
    assert printable("Grüße 🔥") == "Grüße 🔥"


def test_what_is_to_be_kept_is_kept():
    assert printable("a\tb\nc\r", keep="\n\t") == "a\tb\nc?"
