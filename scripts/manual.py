"""Writes `docs/commands.md`: every command and variable of the device, from their declarations (`make manual`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from zentrid.commands.catalog import build_registry
from zentrid.commands.help import ending, manual_rows, variable_rules
from zentrid.commands.registry import Command, Registry
from zentrid.core.framing import TEXTS, Code
from zentrid.core.variables import Variable

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
_COMMON: Final = (Code.PARSE_ERROR, Code.UNKNOWN_COMMAND, Code.BUFFER_OVERFLOW)
_MEANINGS: Final = {
    Code.SUCCESS: "the answer is what was asked for",
    Code.FAILED: "the command was understood and could not be carried out, or was cancelled; a sentence says why",
    Code.PARSE_ERROR: "a quote is not closed, too many words, not UTF-8",
    Code.UNKNOWN_COMMAND: "there is no such command, or safe mode does not allow it",
    Code.TOO_FEW_ARGUMENTS: "an argument, or the value of an option, is missing",
    Code.TOO_MANY_ARGUMENTS: "a word too many; put one that has blanks in double quotes",
    Code.UNKNOWN_OPTION: "the command has no such option",
    Code.BAD_ARGUMENT: "an argument is not of its kind",
    Code.BUFFER_OVERFLOW: "the line, or the answer, is too long",
    Code.OUT_OF_BOUNDS: "a number or text is outside of its range",
}
_INTRODUCTION: Final = """\
# Commands and variables

One command language behind every door. This page is made from the declarations of the commands (`make manual`); `help <name>`
says the same on the device, `help commands` and `help variables` list the names, and Tab completes them.

A line is a command's name, its options and its arguments, separated by blanks. Double quotes keep blanks together; a
backslash makes `\\"`, `\\\\`, `\\ ` and `\\xHH`. Commands and variables have a long and a short name: `get system.uuid` is
`get sy u`.

For programs: `set system.cmd.format machine` (no echo, no prompt, a header before every answer). A header is `R` (`S` in safe
mode), one digit code, five digits length, CRLF; then so many bytes, the last two of which are CRLF. `L` instead of `R`: log
text, which may come before the answer, such as the reason of a failure. The switches one by one: `system.cmd.echo`,
`.prompt_enabled`, `.header_enabled`, `.buffered` (log text comes together with the answer), `system.print_level`. Each session
has its own; `save` makes the ones that were set the start of new sessions.

What `set` changes holds until the next start; `save` keeps it. In safe mode commands that are not marked for it answer
`Unknown command` and say why.
"""


def page(registry: Registry) -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION, "## Codes\n", _table(("code", "text", "means"), _codes()), "## Commands\n"]
    parts.append(_table(("command", "short", "does", "in safe mode"), _overview(registry)))
    parts += [_explain(command) for command in registry]
    parts.append("## Variables\n")
    for group, members in groupby(registry.variables, key=lambda v: v.name.split(".")[0]):
        parts += [f"### `{group}`\n", _table(("variable", "short", "value", "default", "meaning"), _rows(members))]
    return "\n".join(parts)


def _codes() -> Iterator[Sequence[str]]:
    for code in Code:
        yield str(int(code)), TEXTS[code], _MEANINGS[code] + (" (any line may get it)" if code in _COMMON else "")


def _overview(registry: Registry) -> Iterator[Sequence[str]]:
    for command in registry:
        anchor = command.name.replace(" ", "-")
        allowed = "yes" if command.safe_mode else ""
        yield f"[`{command.name}`](#{anchor})", f"`{command.short_name}`", _plain(command.summary), allowed


def _explain(command: Command) -> str:
    lines = [
        f"### {command.name}\n",
        f"    {command.signature.usage(command.name)}\n",
        f"{_plain(_sentence(command.summary))}\n",
    ]
    lines += [f"- `{name}`: {_plain(meaning)}" for name, meaning in manual_rows(command)]
    if manual_rows(command):
        lines.append("")
    if command.notes:
        lines.append(f"{_plain(command.notes)}\n")
    lines.append(
        f"Short name: `{command.short_name}`. In safe mode: {'yes' if command.safe_mode else 'no'}. {ending(command)} "
        f"Codes: {', '.join(str(int(code)) for code in command.codes)}.\n"
    )
    lines.append(f"Example: `{command.example}`\n")
    return "\n".join(lines)


def _rows(members: Iterable[Variable]) -> Iterator[Sequence[str]]:
    for variable in members:
        value = variable.kind.describe() if variable.writable else ""
        default = f"`{variable.show(variable.default)}`" if variable.writable and variable.default != "" else ""
        usual = ("kept by save", "reset by factory reset")
        rules = [rule for rule in variable_rules(variable) if rule not in usual]
        if variable.writable and not variable.saved:
            rules.append("not kept by save")
        yield (
            f"`{variable.name}`", f"`{variable.short}`", value, default,
            _plain(variable.help) + (f" ({', '.join(rules)})" if rules else ""),
        )  # fmt: skip


def _plain(text: str) -> str:
    """Return text so that a placeholder such as <gpio>, or an asterisk, is no markup."""
    return text.replace("<", "&lt;").replace("*", "\\*")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(build_registry()))


if __name__ == "__main__":
    main()
