"""Reading and setting variables, and their way to flash and back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from zentrid.commands.call import Call
from zentrid.commands.getters import GETTERS
from zentrid.commands.registry import Command
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, CommandError
from zentrid.core.network import plan_at_start
from zentrid.core.variables import Variable
from zentrid.errors import ZentriError

_UNKNOWN_HINT = "'help variables' lists the ones there are"


def show(call: Call, variable: Variable) -> str:
    """Return one variable as `get` prints it; raises ZentriError or OSError when a dynamic one cannot be had."""
    if variable.session:
        return variable.show(call.session[variable.name])
    if variable.dynamic and not variable.secret:
        return GETTERS[variable.name](call.ctx)
    return variable.show(call.ctx.settings.values[variable.name])


def _available(call: Call, variables: Sequence[Variable]) -> list[Variable]:
    return [v for v in variables if v.safe_mode or not call.ctx.safe_mode]


def _refuse(call: Call, words: Sequence[str]) -> CommandError:
    """Return the error for a name that no variable has, or none that safe mode allows."""
    name = " ".join(words)
    if call.ctx.safe_mode:
        return CommandError(Code.BAD_ARGUMENT, f"The variable '{name}' is not available in safe mode; {_UNKNOWN_HINT}.")
    return CommandError(Code.BAD_ARGUMENT, f"There is no variable '{name}'; {_UNKNOWN_HINT}.")


async def _get(call: Call) -> str:
    words = call.arguments.rest or ("all",)
    found = call.registry.variables.find(words)
    if found is not None and not found[1] and _available(call, [found[0]]):
        return await _get_one(call, found[0])
    members = tuple(call.registry.variables) if words == ("all",) else call.registry.variables.group(words)
    members = tuple(_available(call, members))
    if not members:
        raise _refuse(call, words)
    return await asyncio.to_thread(_lines, call, members)


async def _get_one(call: Call, variable: Variable) -> str:
    try:
        text = await asyncio.to_thread(show, call, variable)
    except OSError as error:
        raise CommandError(
            Code.FAILED, f"{variable.name} cannot be read ({error.strerror or error}); try again."
        ) from error
    return text or "\n"


def _lines(call: Call, members: Sequence[Variable]) -> str:
    """Return lines `name: value`; one value that cannot be had does not spoil the others."""
    lines = []
    for variable in members:
        try:
            text = show(call, variable)
        except (ZentriError, OSError) as error:
            text = f"not available ({error})"
        lines.append(f"{variable.name}: {text}".rstrip())
    return "\n".join(lines)


async def _set(call: Call) -> str:
    words = (call.arguments.values["name"], *call.arguments.rest)
    found = call.registry.variables.find(words)
    if found is None or not _available(call, [found[0]]):
        raise _refuse(call, words[:-1])
    variable, values = found
    if not variable.writable:
        raise CommandError(Code.BAD_ARGUMENT, f"{variable.name} is read-only; 'get {variable.name}' shows it.")
    if not values:
        raise CommandError(Code.TOO_FEW_ARGUMENTS, f"Give {variable.name} a value: {variable.kind.describe()}.")
    if len(values) > 1:
        raise CommandError(Code.TOO_MANY_ARGUMENTS, f"{variable.name} takes one value; put double quotes around it.")
    try:
        value = variable.kind.parse(values[0])
    except CommandError as error:
        if variable.secret:  # the sentence would show what was typed
            raise CommandError(
                error.code, f"The value of {variable.name} must be {variable.kind.describe()}."
            ) from None
        raise
    if variable.session:
        call.session.set(variable.name, value)
    else:
        call.ctx.settings.values.set(variable.name, value)
    return "Set OK"


async def _save(call: Call) -> None:
    call.session.keep(call.ctx.settings.values)
    await call.ctx.settings.save()
    _, problem = plan_at_start(call.ctx.settings.values)
    if problem:  # it can be saved, a step on the way, but nobody should find out at the next start
        call.out.log(f"Saved, but the network would not come up like this at the next start: {problem}")


async def _load(call: Call) -> None:
    for problem in await call.ctx.settings.reload():
        call.out.log(problem)


COMMANDS = (
    Command(
        "get",
        "print a variable; a group or 'all' prints lines 'name: value'",
        _get,
        "get system.uuid",
        arguments=(Argument("name|all", "a variable, a group of them, or all", optional=True, many=True),),
    ),
    Command(
        "set",
        "set a variable until the next restart; 'save' keeps it",
        _set,
        "set system.print_level error",
        arguments=(
            Argument("name", "a variable"),
            Argument("value", "its value; in double quotes if it has blanks", many=True),
        ),
        more_codes=(Code.TOO_MANY_ARGUMENTS,),
    ),
    Command("save", "write the variables to flash", _save, "save"),
    Command("load", "read the variables from flash again; what was not saved is lost", _load, "load"),
)
