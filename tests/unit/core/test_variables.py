"""Variables: types and ranges, names and groups, and what goes to flash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import (
    MASK,
    MAX_UNKNOWN,
    Bool,
    Choice,
    Int,
    Kind,
    Text,
    Value,
    Values,
    Variable,
    VariableTable,
)

TABLE = VariableTable(
    (
        Variable("system.name", "sy n", Text(8), "", "a name"),
        Variable("system.cmd.echo", "sy c e", Bool(), True, "echo"),
        Variable("net.level", "ne l", Int(-5, 10, "dB"), 3, "a level"),
        Variable("net.password", "ne p", Text(16), "", "a secret", secret=True),
        Variable("net.seen", "ne s", Int(0, 9), 0, "not saved", saved=False, factory_reset=False),
    )
)
KEY = "ssh-ed25519 " + "A" * 68


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Bool(), "1", True),
        (Bool(), "off", False),
        (Int(-5, 10), "-5", -5),
        (Int(-5, 10), "+10", 10),
        (Choice(("a", "b")), "b", "b"),
        (Text(4), "über"[:3], "übe"),
        (VARIABLES["ssh.authorized_keys"].kind, KEY + " me@desk;" + KEY, KEY + " me@desk;" + KEY),
        (VARIABLES["dms.host"].kind, "dms.example.com", "dms.example.com"),
    ],
)
def test_good_values(kind: Kind, text: str, value: Value) -> None:
    parsed = kind.parse(text)
    assert parsed == value
    assert type(parsed) is type(value)
    assert kind.check(parsed)


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        (Bool(), "2", Code.BAD_ARGUMENT),
        (Int(-5, 10), "11", Code.OUT_OF_BOUNDS),
        (Int(-5, 10), "-6", Code.OUT_OF_BOUNDS),
        (Int(0, 10), "1.0", Code.BAD_ARGUMENT),
        (Int(0, 10), "0x1", Code.BAD_ARGUMENT),
        (Int(0, 10), "٣", Code.BAD_ARGUMENT),
        (Int(0, 10), "9" * 5000, Code.BAD_ARGUMENT),
        (Choice(("a", "b")), "A", Code.BAD_ARGUMENT),
        (Text(3), "über", Code.OUT_OF_BOUNDS),
        (Text(9), "a\nb", Code.BAD_ARGUMENT),
        (Text(9), "a\x1bb", Code.BAD_ARGUMENT),
        (VARIABLES["dms.host"].kind, "a b", Code.BAD_ARGUMENT),
        (VARIABLES["dms.host"].kind, "http://x/", Code.BAD_ARGUMENT),
        (VARIABLES["ssh.authorized_keys"].kind, 'command="sh" ' + KEY, Code.BAD_ARGUMENT),
        (VARIABLES["ssh.authorized_keys"].kind, KEY + ";" + "x", Code.BAD_ARGUMENT),
    ],
)
def test_bad_values(kind: Kind, text: str, code: Code) -> None:
    with pytest.raises(CommandError) as caught:
        kind.parse(text)
    assert caught.value.code is code


@given(st.sampled_from(tuple(VARIABLES)), st.text(max_size=60))
def test_any_text_is_a_valid_value_or_a_command_error(variable: Variable, text: str) -> None:
    code: Code | None = None
    try:
        value = variable.kind.parse(text)
    except CommandError as error:
        code = error.code
    assert code in (None, Code.BAD_ARGUMENT, Code.OUT_OF_BOUNDS)
    if code is None:
        assert variable.kind.check(value)


@given(st.sampled_from(tuple(VARIABLES)), st.none() | st.floats() | st.integers() | st.text() | st.booleans())
def test_checking_takes_anything_that_json_may_hold(variable: Variable, value: Value) -> None:
    assert variable.kind.check(value) in (True, False)


# --- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "name", "rest"),
    [
        (["system.name", "x"], "system.name", ("x",)),
        (["sy", "n", "x"], "system.name", ("x",)),
        (["sy", "c", "e"], "system.cmd.echo", ()),
    ],
)
def test_finding(words: list[str], name: str, rest: tuple[str, ...]) -> None:
    found = TABLE.find(words)
    assert found is not None
    assert (found[0].name, found[1]) == (name, rest)


def test_what_is_not_there_is_not_found() -> None:
    assert TABLE.find([]) is None
    assert TABLE.find(["sy"]) is None
    assert TABLE.find(["system"]) is None


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["system"], ["system.cmd.echo", "system.name"]),
        (["sy"], ["system.cmd.echo", "system.name"]),
        (["system.cmd"], ["system.cmd.echo"]),
        (["sy", "c"], ["system.cmd.echo"]),
        (["nothing"], []),
        ([], []),
    ],
)
def test_groups(words: list[str], names: list[str]) -> None:
    assert [v.name for v in TABLE.group(words)] == names


def test_two_variables_may_not_share_a_name() -> None:
    with pytest.raises(ValueError, match="share the name sy n"):
        VariableTable([*TABLE, Variable("system.note", "sy n", Text(8), "", "another")])


def test_a_default_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="default"):
        VariableTable([Variable("a.b", "a b", Int(1, 2), 3, "bad")])


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("system.uuid", "sy u"),
        ("network.ip", "ne i"),
        ("dms.bundle_id", "dm b"),
        ("dms.ota_result", "dm o"),
        ("system.cmd.echo", "sy c e"),
    ],
)
def test_short_names_of_the_language(name: str, short: str) -> None:
    assert VARIABLES[name].short == short


def test_short_names_follow_the_groups() -> None:
    for variable in VARIABLES:
        assert variable.short.split()[0] == variable.name[:2]
        assert 2 <= len(variable.short.split()) <= len(variable.name.split("."))


def test_older_name_of_the_format() -> None:
    found = VARIABLES.find(["system.cmd.mode"])
    assert found is not None
    assert found[0].name == "system.cmd.format"


def test_facts_are_neither_set_nor_saved_nor_reset() -> None:
    for variable in VARIABLES:
        if not variable.writable:
            assert not variable.saved, variable.name
            assert not variable.factory_reset, variable.name
        else:
            assert variable.saved, variable.name
            assert variable.factory_reset, variable.name
            assert variable.example, variable.name


def test_examples_can_be_set() -> None:
    for variable in VARIABLES:
        if variable.writable and variable.name != "ssh.authorized_keys":
            variable.kind.parse(variable.example.strip('"'))


# --- values -----------------------------------------------------------------------------------------------------------
def test_defaults_then_set_then_reset() -> None:
    values = Values(TABLE)
    assert (values.number("net.level"), values.flag("system.cmd.echo"), values.text("system.cmd.echo")) == (
        3,
        True,
        "1",
    )
    values.set("net.level", 7)
    values.set("net.seen", 5)
    values.reset()
    assert values.number("net.level") == 3
    assert values.number("net.seen") == 5


def test_wrong_type_or_range_cannot_be_set() -> None:
    values = Values(TABLE)
    for bad in (11, "3", True):
        with pytest.raises(ValueError, match=r"net\.level"):
            values.set("net.level", bad)
    with pytest.raises(KeyError):
        values.set("net.nothing", 1)
    assert values.number("net.level") == 3


def test_listeners_hear_changes_and_only_changes() -> None:
    values = Values(TABLE)
    heard: list[tuple[str, Value]] = []
    end = values.subscribe(lambda name, value: heard.append((name, value)))
    values.set("net.level", 3)
    values.set("net.level", 4)
    end()
    values.set("net.level", 5)
    assert heard == [("net.level", 4)]


def test_only_saved_ones_that_differ_go_to_flash() -> None:
    values = Values(TABLE)
    values.set("net.level", 4)
    values.set("net.seen", 5)
    values.set("system.cmd.echo", True)
    assert values.to_saved() == {"net.level": 4}


def test_unknown_names_are_kept_and_bad_values_told() -> None:
    values = Values(TABLE)
    values.set("system.name", "old")
    problems = values.take_saved({"net.level": 99, "later.thing": "kept", "net.password": "pw"})
    assert len(problems) == 1
    assert "net.level" in problems[0]
    assert values.number("net.level") == 3
    assert values.text("system.name") == ""
    assert values.to_saved() == {"later.thing": "kept", "net.password": "pw"}


def test_unknown_names_are_bounded() -> None:
    values = Values(TABLE)
    values.take_saved({f"x{n}": n for n in range(MAX_UNKNOWN + 50)})
    assert len(values.to_saved()) == MAX_UNKNOWN


def test_secrets_are_not_shown() -> None:
    variable = TABLE["net.password"]
    assert variable.show("hunter2") == MASK
    assert variable.show("") == ""
