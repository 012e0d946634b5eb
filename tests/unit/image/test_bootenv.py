"""The boot script's source form, and its agreement with the names that Linux uses."""

import re
from pathlib import Path

import pytest

from scripts.image import bootenv, fit
from zentrid.bundle.tree import HashTree
from zentrid.core import bootstate, names

BOARD = Path(__file__).resolve().parents[3] / "buildroot_external/board/common"
SCRIPT = (BOARD / "boot.script").read_text()


def test_functions_become_one_line_each():
    assert bootenv.parse_functions("# c\nfunc a\n  one;\n  # c\n  two;\nend\n") == {"a": "one; two;"}


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("echo hello\n", "outside"),
        ("func a\n echo;\n", "no end"),
        ("func a\nfunc b\nend\n", "inside"),
        ("func a\nend\nfunc a\nend\n", "second time"),
    ],
)
def test_a_malformed_source_is_refused(source, word):
    with pytest.raises(bootenv.BootScriptError, match=word):
        bootenv.parse_functions(source)


def test_every_function_that_is_run_exists():
    functions = bootenv.parse_functions(SCRIPT)
    called = {word for body in functions.values() for word in _words_after("run", body)}
    assert called <= set(functions)
    assert set(functions) - called == {"main"}, "a function that nobody runs"


def _words_after(word, body):
    words = body.replace(";", " ; ").split()
    return [words[n + 1] for n, w in enumerate(words[:-1]) if w == word]


def test_every_constant_is_used_and_every_name_that_is_used_is_defined():
    text = "\n".join(bootenv.parse_functions(SCRIPT).values())
    used = set(re.findall(r"\$\{([A-Za-z_0-9]+)\}", text))
    constants = set(bootenv.constants())
    assert constants <= used
    own = set(re.findall(r"(?:setenv|setexpr(?:\.l)?) ([A-Za-z_0-9]+)", text)) | {"slot"}
    assert used - constants - own - set(names.BOOTSTATE_VARS) == {"fdtcontroladdr"}


def test_numbers_of_the_script_fit_into_the_signed_words_of_each_board():
    wide, narrow = bootenv.constants(64), bootenv.constants(32)
    names_of_numbers = ("seq_end", "seq_most", "seq_high", "floor_most")
    # What these were before there was a second board.
    assert [wide[name] for name in names_of_numbers] == [
        "4000000000000000", "3fffffffffffffff", "3fffffff00000000", "ffffffff",
    ]  # fmt: skip
    for constants, bits in ((wide, 64), (narrow, 32)):
        assert int(constants["seq_high"], 16) < int(constants["seq_most"], 16) < int(constants["seq_end"], 16)
        assert all(int(constants[name], 16) < 1 << (bits - 1) for name in names_of_numbers)
        assert int(constants["seq_end"], 16) == bootstate.seq_end(bits)
    assert {name for name in wide if wide[name] != narrow[name]} == set(names_of_numbers)


def test_a_boot_loader_of_32_bits_is_not_asked_for_wider_numbers():
    narrow = bootenv.environment(SCRIPT, production=False, bits=32)
    wide = bootenv.environment(SCRIPT, production=False, bits=64)
    assert wide.count("itest.q ") > 5
    assert "itest.q" not in narrow
    assert narrow.count("itest.l ") == wide.count("itest.l ") + wide.count("itest.q ")


def test_no_loop_that_a_key_could_end():
    text = "\n".join(bootenv.parse_functions(SCRIPT).values())
    assert not re.findall(r"(?m)(?:^|; |do |then |else )(?:for|while|until) ", text)


def test_the_watchdogs_time_is_the_one_that_linux_gets():
    tree = HashTree.from_leaves([bytes(32)])
    assert f"i6300esb.heartbeat={bootenv.WATCHDOG_TIMEOUT_S} " in fit.kernel_arguments("a", tree)


def test_environment_fits_into_the_roms_environment():
    assert len(bootenv.environment(SCRIPT, production=True)) < 0x4000 - 1024


def test_nothing_but_the_named_variables_is_imported():
    imports = [line for line in SCRIPT.splitlines() if "env import" in line]
    assert imports
    assert all("0x1000 ${bs_vars} && " in line for line in imports)
    allowed = set(bootenv.constants()["bs_vars"].split())
    assert allowed == set(names.BOOTSTATE_VARS)
    functions = set(bootenv.parse_functions(SCRIPT))
    assert not allowed & (functions | {"bootcmd", "bootargs", "preboot", "stdin", "bootdelay"})


def test_second_copy_lies_where_linux_looks_for_it():
    sectors = names.BOOTSTATE_COPY_OFFSETS_BYTES[1] // 512
    assert f"setexpr bs1 ${{bs0}} + {sectors:x};" in SCRIPT
    assert names.BOOTSTATE_COPY_BYTES == 0x1000 == 8 * 512


def test_kernel_arguments_have_the_names_that_linux_reads():
    for argument in (names.ARG_SLOT, names.ARG_WARM, names.ARG_STATE_LOST, names.ARG_RESET, names.ARG_WHY):
        assert f" {argument}=${{" in SCRIPT
    assert f"/configurations/conf-${{slot}} {names.FIT_VERSION_PROPERTY};" in SCRIPT


def test_production_has_no_console_input():
    assert "\nstdin=nulldev\n" in bootenv.environment(SCRIPT, production=True)
    assert "\nstdin=serial\n" in bootenv.environment(SCRIPT, production=False)


def test_fragment_keeps_the_environment_off_every_disk():
    fragment = (BOARD / "u-boot.fragment").read_text()
    assert "CONFIG_ENV_IS_NOWHERE=y" in fragment
    assert "# CONFIG_OF_BOARD is not set" in fragment, "the tree with the key must come from the ROM"
