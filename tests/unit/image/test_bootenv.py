"""The boot script's source form, and its agreement with the names that Linux uses."""

import re
from pathlib import Path

import pytest

from scripts.image import bootenv, fit
from zentrid.bundle.tree import HashTree
from zentrid.core import names

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
