"""Explains commands and variables, all from their declarations; also completes what is being typed."""

from __future__ import annotations

from collections.abc import Sequence

from zentrid.commands.call import Call
from zentrid.commands.context import Context
from zentrid.commands.registry import Command, Registry
from zentrid.core.framing import TEXTS, Code
from zentrid.core.grammar import Argument, Arguments, CommandError
from zentrid.core.variables import Bool, Choice, Variable

_TOPICS = ("commands", "variables")


async def _help(call: Call) -> str:
    words = call.arguments.rest
    safe_mode = call.ctx.safe_mode
    if not words:
        return _overview(call.registry, safe_mode=safe_mode)
    if words == ("commands",):
        return "\n".join(f"{c.name} : {c.short_name}" for c in call.registry.available(safe_mode=safe_mode))
    if words == ("variables",):
        return "\n".join(f"{v.name} : {v.short}" for v in call.registry.variables if v.safe_mode or not safe_mode)
    found = call.registry.find(words)
    if found is not None and not found[1]:
        return _explain_command(found[0])
    variable = call.registry.variables.find(words)
    if variable is not None and not variable[1]:
        return _explain_variable(variable[0])
    members = [f"{c.name}: {c.summary}" for c in call.registry if c.name.split()[0] == words[0] and len(words) == 1]
    members += [f"{v.name}: {v.help}" for v in call.registry.variables.group(words)]
    if members:
        return "\n".join(members)
    raise CommandError(
        Code.BAD_ARGUMENT,
        f"There is no command or variable '{' '.join(words)}'; 'help commands' and 'help variables' list them.",
    )


def _overview(registry: Registry, *, safe_mode: bool) -> str:
    commands = registry.available(safe_mode=safe_mode)
    width = max(len(c.name) for c in commands)
    lines = [f"{c.name.ljust(width)}  {c.summary}" for c in commands]
    return "\n".join(
        [*lines, "", "help commands, help variables: all names; help <name>: one of them, with an example"]
    )


def _explain_command(command: Command) -> str:
    signature = command.signature
    lines = [signature.usage(command.name), command.summary]
    lines += [f"  {name}: {meaning}" for name, meaning in manual_rows(command)]
    if command.notes:
        lines.append(command.notes)
    lines.append(
        f"Short: {command.short_name}. In safe mode: {'yes' if command.safe_mode else 'no'}. {ending(command)}"
    )
    lines.append(f"Codes: {', '.join(f'{code:d} {TEXTS[code].lower()}' for code in command.codes)}.")
    lines.append(f"Example: {command.example}")
    return "\n".join(lines)


def manual_rows(command: Command) -> list[tuple[str, str]]:
    """Return each option and argument of a command with its meaning, as they stand on its usage line."""
    rows = [(f"-{o.letter} {o.value}" if o.value else f"-{o.letter}", o.help) for o in command.options]
    return [*rows, *((a.name, a.help) for a in command.arguments)]


def ending(command: Command) -> str:
    """Return how a command ends, in a sentence: by itself, in time, or when it is told to."""
    if command.ends_with_session(Arguments()):
        return "Goes on until Ctrl-C, or until the session ends."
    endless = [f"-{o.letter}" for o in command.options if command.ends_with_session(Arguments(options={o.letter: ""}))]
    if endless:
        return f"Ends by itself; with {' or '.join(endless)} it goes on until Ctrl-C, or until the session ends."
    if command.timeout_s is None:
        return "Ends by its own limits; Ctrl-C ends it early."
    return f"Given up after {command.timeout_s:g} s."


def _explain_variable(variable: Variable) -> str:
    lines = [f"{variable.name}: {variable.help}"]
    if variable.writable:
        lines.append(f"Value: {variable.kind.describe()}. Default: {variable.show(variable.default) or '(empty)'}.")
    lines.append(f"Short: {variable.short}. {', '.join(variable_rules(variable))}.")
    verb = f"set {variable.name} {variable.example}" if variable.writable else f"get {variable.name}"
    lines.append(f"Example: {verb}")
    return "\n".join(lines)


def variable_rules(variable: Variable) -> list[str]:
    """Return what holds for a variable, in words."""
    rules = {
        "read-only": not variable.writable,
        "kept by save": variable.saved,
        "reset by factory reset": variable.factory_reset,
        "each session has its own": variable.session,
        "never shown": variable.secret,
        "not in safe mode": not variable.safe_mode,
    }
    return [text for text, holds in rules.items() if holds]


def complete(registry: Registry, ctx: Context, before: str) -> Sequence[str]:
    """Return the words that could stand in place of the last word of `before` (the text before the cursor)."""
    words = before.split(" ")
    *done, last = words
    done = [w for w in done if w]
    commands = registry.available(safe_mode=ctx.safe_mode)
    names = [v.name for v in registry.variables if v.safe_mode or not ctx.safe_mode]
    if not done:
        return sorted({c.name.split()[0] for c in commands})
    if done == ["get"]:
        return ["all", *names]
    if done == ["set"]:
        return [n for n in names if registry.variables[n].writable]
    if done == ["help"]:
        return sorted({*(c.name.split()[0] for c in commands), *_TOPICS, *names})
    if done[0] == "set":
        return _values(registry, ctx, done[1:])
    return _arguments(commands, registry, done, last)


def _values(registry: Registry, ctx: Context, words: Sequence[str]) -> Sequence[str]:
    """Return the values that a variable, named in one word or more, can be set to."""
    found = registry.variables.find(words)
    if found is None or found[1] or not found[0].writable or (ctx.safe_mode and not found[0].safe_mode):
        return ()
    kind = found[0].kind
    return kind.words if isinstance(kind, Choice) else ("0", "1") if isinstance(kind, Bool) else ()


def _arguments(commands: Sequence[Command], registry: Registry, done: Sequence[str], last: str) -> Sequence[str]:
    """Return second words of commands, options, and arguments that are one of a few words."""
    offered = {c.name.split()[1] for c in commands if c.name.split()[:-1] == list(done)}
    found = registry.find(done)
    if found is not None and found[0] in commands:
        command, given = found
        if last.startswith("-"):
            return [f"-{o.letter}" for o in command.options]
        if (argument := _argument_at(command, given)) is not None:
            offered |= set(argument.choices)
    return sorted(offered)


def _argument_at(command: Command, given: Sequence[str]) -> Argument | None:
    """Return the argument that is to come after the words already given; None where an option's value or nothing is."""
    valued = {f"-{o.letter}" for o in command.options if o.value}
    if given and given[-1] in valued:
        return None
    plain = [
        word for before, word in zip(("", *given), given, strict=False) if word[:1] != "-" and before not in valued
    ]
    return command.arguments[len(plain)] if len(plain) < len(command.arguments) else None


COMMANDS = (
    Command(
        "help",
        "explain a command or a variable, or list them",
        _help,
        "help ota",
        arguments=(Argument("commands|variables|name", "what to list or explain", optional=True, many=True),),
    ),
)
