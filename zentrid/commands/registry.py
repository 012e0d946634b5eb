"""What a command declares about itself, and the registry that finds commands by what was typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from zentrid.commands.call import Handler
from zentrid.core.framing import Code
from zentrid.core.grammar import Argument, Arguments, CommandError, Option, Signature, split_words
from zentrid.core.variables import VariableTable
from zentrid.core.weburl import hide_secrets

DEFAULT_TIMEOUT_S = 120.0
_MOST_DIGITS = 12


@dataclass(frozen=True)
class Command:
    """The one declaration of a command."""

    name: str
    """Long name; may be two words (`dms claim`)."""
    summary: str
    run: Handler
    example: str
    short: str = ""
    """Short name; empty: the same as the long one."""
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    safe_mode: bool = True
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    """Given up after so long; None: the command has its own limits."""
    interruptible: bool = False
    """Looks at `call.interrupt` itself; others are simply ended by Ctrl-C."""
    ends_with_session: Callable[[Arguments], bool] = lambda _given: False
    """Tells whether it has no end of its own as it was called: then it is ended when nobody can type Ctrl-C any more."""
    web_addresses: bool = False
    """Takes an address on a web server, which may hold a password or a token: then it never reaches history or logs."""
    payload_size: Callable[[Arguments], str] | None = None
    """Bytes may follow its line: tells how many the line announces, as it was typed. They are no lines, and no Ctrl-C."""
    notes: str = ""
    """What else a person should know, in whole sentences."""
    more_codes: tuple[Code, ...] = ()
    """Codes of its answers that do not follow from its arguments and options."""

    @property
    def short_name(self) -> str:
        """The short name."""
        return self.short or self.name

    @property
    def signature(self) -> Signature:
        """The arguments and options it takes."""
        return Signature(self.arguments, self.options)

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes of its answers, besides those that any line may get (parse error, unknown command, overflow)."""
        takes_values = bool(self.arguments) or any(o.value for o in self.options)
        may_be = {
            Code.SUCCESS: True,
            Code.FAILED: True,
            Code.TOO_FEW_ARGUMENTS: any(not a.optional for a in self.arguments) or any(o.value for o in self.options),
            Code.TOO_MANY_ARGUMENTS: not (self.arguments and self.arguments[-1].many),
            Code.UNKNOWN_OPTION: bool(self.options),
            Code.BAD_ARGUMENT: takes_values,
            Code.OUT_OF_BOUNDS: takes_values,
        }
        return tuple(sorted({code for code, holds in may_be.items() if holds} | {*self.more_codes}))


class Registry:
    """All commands of one device, and its variables."""

    def __init__(self, commands: Iterable[Command], variables: VariableTable) -> None:
        """Index the commands; raises ValueError if two share a name."""
        self.commands = tuple(sorted(commands, key=lambda c: c.name))
        self.variables = variables
        self._by_words: dict[tuple[str, ...], Command] = {}
        for command in self.commands:
            for name in (command.name, command.short_name):
                if self._by_words.setdefault(tuple(name.split()), command) is not command:
                    raise ValueError(f"two commands are called {name}")

    def __iter__(self) -> Iterator[Command]:
        return iter(self.commands)

    def available(self, *, safe_mode: bool) -> tuple[Command, ...]:
        """Return the commands that may be used now, by name."""
        return tuple(c for c in self.commands if c.safe_mode or not safe_mode)

    def find(self, words: Sequence[str]) -> tuple[Command, tuple[str, ...]] | None:
        """Return the command that the words begin with, and the words after its name."""
        for size in (2, 1):
            command = self._by_words.get(tuple(words[:size])) if len(words) >= size else None
            if command is not None:
                return command, tuple(words[size:])
        return None

    def announced_bytes(self, words: Sequence[str]) -> int | None:
        """Return how many bytes follow a line, whether or not it can be carried out; None: it does not say."""
        found = self.find(words)
        if found is None:
            return None
        command, rest = found
        if command.payload_size is None:
            return None
        try:
            text = command.payload_size(command.signature.parse(rest, command.name))
        except CommandError:
            return None
        return int(text[:_MOST_DIGITS]) if text.isascii() and text.isdigit() else None

    def resolve(self, words: Sequence[str], *, safe_mode: bool) -> tuple[Command, tuple[str, ...]]:
        """Return the command and its words; raises CommandError (unknown command) with the reason."""
        found = self.find(words)
        if found is not None and (found[0].safe_mode or not safe_mode):
            return found
        if safe_mode:
            raise CommandError(
                Code.UNKNOWN_COMMAND,
                f"'{words[0]}' is not available in safe mode; 'help commands' lists what is. "
                "To leave safe mode: repair or update the device, then 'faults_reset' and 'reboot'.",
            )
        if words[0] in ("exit", "quit", "logout"):
            raise CommandError(Code.UNKNOWN_COMMAND, "Ctrl-D on an empty line closes an SSH session.")
        group = [c.name for c in self.commands if c.name.split()[0] == words[0]]
        hint = f"'{words[0]}' has: {', '.join(group)}." if group else "'help commands' lists the ones there are."
        raise CommandError(
            Code.UNKNOWN_COMMAND, f"There is no command '{' '.join(words[:2] if group else words[:1])}'; {hint}"
        )

    def keeps_secret(self, line: str) -> bool:
        """Tell whether a line may hold a secret, so that it must not go into history or logs."""
        if hide_secrets(line) != line:  # an address with a password
            return True
        try:
            words = split_words(line)
        except CommandError:
            words = line.replace('"', " ").split()
        found = self.find(words)
        if found is None:  # mistyped; only keep what surely is no mistyped claim or password
            return any(part in line.lower() for part in ("claim", "dms", "passw", "token", "secret", "@", "?"))
        command, rest = found
        if command.name == "set":
            variable = self.variables.find(rest)
            return "passw" in line.lower() if variable is None else variable[0].secret
        if command.web_addresses and any(mark in word for word in rest for mark in "@?"):  # they need no scheme
            return True
        return any(a.secret for a in command.arguments) and len(rest) > 0
