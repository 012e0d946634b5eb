"""One call of a command: what it is given, and what it gives back. The same for every door."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from zentrid.commands.context import Context
from zentrid.core.framing import TEXTS, Code
from zentrid.core.grammar import Arguments, CommandError
from zentrid.core.variables import Value, Values

if TYPE_CHECKING:
    from zentrid.commands.registry import Registry

FORMAT = "system.cmd.format"
ECHO = "system.cmd.echo"
PROMPT = "system.cmd.prompt_enabled"
HEADER = "system.cmd.header_enabled"
BUFFERED = "system.cmd.buffered"
PRINT_LEVEL = "system.print_level"


class Output(Protocol):
    """Where a command's text goes while it runs."""

    def log(self, text: str) -> None:
        """Show lines before the answer."""

    def progress(self, percent: int, text: str) -> None:
        """Show how far a long command is; the door decides how often."""


class Payload(Protocol):
    """The bytes that follow a command's line, at doors that can carry some. Commands that take some declare it."""

    def expect(self, size_bytes: int) -> None:
        """Be told that so many bytes follow the line. What the command does not read is thrown away, not carried out."""

    async def read(self, size_bytes: int) -> bytes:
        """Return exactly the next `size_bytes` bytes. Raises CommandError: fewer came, or this door carries none."""


class NoPayload:
    """A door that carries nothing but lines."""

    def expect(self, size_bytes: int) -> None:
        """Expect nothing: nothing can come."""

    async def read(self, size_bytes: int) -> bytes:
        """Refuse."""
        if not size_bytes:
            return b""
        raise CommandError(
            Code.FAILED, "Bytes cannot be sent through this door; use a console in machine mode, SSH or HTTP."
        )


class CollectedOutput:
    """Keeps log text for doors that answer in one piece; progress is left out."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        """Keep the text."""
        self.lines.append(text)

    def progress(self, percent: int, text: str) -> None:
        """Ignore it: nobody is watching."""


class SessionState:
    """A session's own switches (variables declared `session`): they start from the settings, and `save` keeps them."""

    def __init__(self, values: Values, *, machine: bool = False) -> None:
        self._own: dict[str, Value] = {v.name: values[v.name] for v in values.table if v.session}
        self._touched: set[str] = set()
        if machine:
            self._apply_format("machine")

    def __getitem__(self, name: str) -> Value:
        return self._own[name]

    def set(self, name: str, value: Value) -> None:
        """Set a switch; the format sets echo, prompt and header as well."""
        self._own[name] = value
        self._touched.add(name)
        if name == FORMAT:
            self._apply_format(str(value))
            self._touched |= {ECHO, PROMPT, HEADER}

    def _apply_format(self, wanted: str) -> None:
        machine = wanted == "machine"
        self._own |= {FORMAT: wanted, ECHO: not machine, PROMPT: not machine, HEADER: machine}

    def keep(self, values: Values) -> None:
        """Put the switches that were set in this session where new sessions find them."""
        for name in sorted(self._touched):
            values.set(name, self._own[name])

    def flag(self, name: str) -> bool:
        """Return a 0/1 switch."""
        return bool(self._own[name])

    @property
    def machine(self) -> bool:
        """Tell whether a program is at the other end."""
        return self._own[FORMAT] == "machine"

    def shows(self, level: str) -> bool:
        """Tell whether log text of this level (`error` or `all`) is shown."""
        wanted = self._own[PRINT_LEVEL]
        return wanted == "all" or wanted == level


@dataclass(frozen=True)
class Reply:
    """What a command gives back when it succeeded."""

    body: str = TEXTS[Code.SUCCESS]
    then: Callable[[], Awaitable[None]] | None = None
    """To be awaited by the door after the answer has gone out (restarting, for example)."""
    data: bytes | None = None
    """Bytes to go out as they are, in place of the body; None: there is a body."""


@dataclass(frozen=True)
class Answer:
    """What a door sends: code and body; a failed one has a reason, which goes before it."""

    code: Code
    body: str
    reason: str = ""
    then: Callable[[], Awaitable[None]] | None = None
    data: bytes | None = None
    """As in `Reply`."""


@dataclass(frozen=True)
class Call:
    """One call of a command."""

    ctx: Context
    registry: Registry
    session: SessionState
    out: Output
    arguments: Arguments
    interrupt: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by Ctrl-C, for commands that declare to look at it."""
    payload: Payload = field(default_factory=NoPayload)


Handler = Callable[[Call], Awaitable[Reply | str | None]]
"""Returns the answer's body; None: `Success`. Raises ZentriError with a sentence on failure."""
