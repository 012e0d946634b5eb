"""Explains commands and variables, all from their declarations; also completes what is being typed."""

from __future__ import annotations

from collections.abc import Sequence

from zentrid.commands.call import Call
from zentrid.commands.context import Context
from zentrid.commands.registry import Command, Registry
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError
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
    lines += [f"  -{o.letter}{' ' + o.value if o.value else ''}: {o.help}" for o in signature.options]
    lines += [f"  {a.name}: {a.help}" for a in signature.arguments]
    lines.append(f"Short: {command.short_name}. In safe mode: {'yes' if command.safe_mode else 'no'}.")
    lines.append(f"Example: {command.example}")
    return "\n".join(lines)


def _explain_variable(variable: Variable) -> str:
    lines = [f"{variable.name}: {variable.help}"]
    if variable.writable:
        lines.append(f"Value: {variable.kind.describe()}. Default: {variable.show(variable.default) or '(empty)'}.")
    rules = {
        "read-only": not variable.writable,
        "kept by save": variable.saved,
        "reset by factory reset": variable.factory_reset,
        "each session has its own": variable.session,
        "never shown": variable.secret,
        "not in safe mode": not variable.safe_mode,
    }
    lines.append(f"Short: {variable.short}. {', '.join(text for text, holds in rules.items() if holds)}.")
    verb = f"set {variable.name} {variable.example}" if variable.writable else f"get {variable.name}"
    lines.append(f"Example: {verb}")
    return "\n".join(lines)


def complete(registry: Registry, ctx: Context, before: str) -> Sequence[str]:
    """Return the words that could stand in place of the last word of `before` (the text before the cursor)."""
    words = before.split(" ")
    *done, _ = words
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
    if done[0] == "set" and len(done) == 2 and done[1] in registry.variables:
        kind = registry.variables[done[1]].kind
        return kind.words if isinstance(kind, Choice) else ("0", "1") if isinstance(kind, Bool) else ()
    return _arguments(commands, done)


def _arguments(commands: Sequence[Command], done: Sequence[str]) -> Sequence[str]:
    """Return second words of commands, and arguments that are one of a few words."""
    seconds = [c.name.split()[1] for c in commands if c.name.split()[:-1] == list(done)]
    for command in commands:
        if command.name.split() == list(done):
            seconds += [choice for a in command.arguments[:1] for choice in a.choices]
    return sorted(seconds)


COMMANDS = (
    Command(
        "help",
        "explain a command or a variable, or list them",
        _help,
        "help ota",
        arguments=(Argument("commands|variables|name", "what to list or explain", optional=True, many=True),),
    ),
)
