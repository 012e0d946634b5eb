"""The boot application's setting and package are read strictly; every end by itself is an exception."""

import json

import pytest

from zentrid.core.apps import AppError, Backoff, Ending, parse_command, parse_package

GOOD = {"name": "sample-arm", "version": "1.0.0", "command": ["bin/arm", "-v"], "description": "moves an arm"}


def test_a_name_with_arguments_is_cut_as_in_a_shell():
    command = parse_command("""sample-arm --interval 1 "two words" 'it''s' a\\ b $HOME *""")
    assert command is not None
    assert (command.target, command.name, command.is_path) == ("sample-arm", "sample-arm", False)
    assert command.arguments == ("--interval", "1", "two words", "its", "a b", "$HOME", "*")


def test_a_path_is_called_by_its_last_part():
    command = parse_command("/usr/bin/python3 -V")
    assert command is not None
    assert (command.is_path, command.name, command.arguments) == (True, "python3", ("-V",))


@pytest.mark.parametrize("setting", ["", "   "])
def test_an_empty_setting_is_no_application(setting):
    assert parse_command(setting) is None


@pytest.mark.parametrize(
    "setting",
    ["'open", "x\\", "../x", "Upper", "a/b", "/bin/../sbin/x", "/bin//x", "/bin/", "/", "''", "a" * 33, "x" * 201,
     "x " * 40, "x 'a\tb'"],
)  # fmt: skip
def test_a_bad_setting_is_refused_with_a_sentence(setting):
    with pytest.raises(AppError, match=r"system\.boot\.app"):
        parse_command(setting)


def test_a_good_package():
    package = parse_package(json.dumps(GOOD).encode(), "sample-arm")
    assert (package.name, package.version, package.command) == ("sample-arm", "1.0.0", ("bin/arm", "-v"))
    without = {key: value for key, value in GOOD.items() if key != "description"}
    assert parse_package(json.dumps(without).encode(), "sample-arm").description == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "other"}, "folder"), ({"name": "Sample"}, "name"), ({"name": 1}, "name"), ({"version": ""}, "version"),
        ({"version": "1 0"}, "version"), ({"command": []}, "command"), ({"command": "bin/arm"}, "command"),
        ({"command": ["../arm"]}, r"\.\."), ({"command": ["bin/../../arm"]}, r"\.\."), ({"command": ["/usr/../arm"]}, r"\.\."),
        ({"command": ["./arm"]}, "command"), ({"command": [""]}, "command"), ({"command": ["arm", "a\nb"]}, "command"),
        ({"command": ["arm", "x" * 201]}, "command"), ({"command": ["arm"] * 33}, "command"), ({"command": [1]}, "command"),
        ({"description": "a\nb"}, "description"), ({"description": "x" * 201}, "description"), ({"user": "root"}, "user"),
    ],
)  # fmt: skip
def test_a_bad_package_is_refused_with_the_reason(change, said):
    with pytest.raises(AppError, match=said):
        parse_package(json.dumps(GOOD | change).encode(), "sample-arm")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 4000, b" " * 5000, b'{"name": "sample-arm"}'])
def test_what_is_no_package_is_refused(data):
    with pytest.raises(AppError, match=r"app\.json"):
        parse_package(data, "sample-arm")


def test_delays_double_up_to_a_minute_and_begin_anew_after_a_steady_minute():
    backoff, delays = Backoff(), []
    for _ in range(9):
        backoff, delay_s = backoff.after(59.9)
        delays.append(delay_s)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    backoff, delay_s = backoff.after(60)
    assert delay_s == 1
    assert backoff.after(0)[1] == 2


@pytest.mark.parametrize(
    ("ending", "is_exception", "leaves_core", "said"),
    [
        (Ending.of(0), True, False, "ended with exit code 0"),
        (Ending.of(3), True, False, "ended with exit code 3"),
        (Ending.of(-11), True, True, "ended by signal 11"),
        (Ending.of(-6), True, True, "ended by signal 6"),
        (Ending.of(-9), True, False, "ended by signal 9"),
        (Ending.of(-9, out_of_memory_mib=64), True, False, "more than its 64 MiB"),
        (Ending.of(-15, asked=True), False, False, "was stopped"),
        (Ending.of(0, asked=True), False, False, "was stopped"),
    ],
)
def test_what_each_end_means(ending, is_exception, leaves_core, said):
    assert (ending.is_exception, ending.leaves_core) == (is_exception, leaves_core)
    assert said in ending.sentence("x")
