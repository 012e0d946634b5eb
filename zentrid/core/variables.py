"""Variables: what one is (type, default, range, rules), how names are found, and the values in RAM. Pure.

The declarations themselves are in `variable_list.py`: one for each variable, and everything else follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError

Value = str | int | bool
MASK: Final = "********"
"""What is shown of a secret that is set; its value never is."""
MAX_UNKNOWN: Final = 256
"""So many settings of other versions are kept; a settings file can hold no more anyway."""


class Kind(Protocol):
    """A type of value, with its range."""

    def parse(self, text: str) -> Value:
        """Return the value that `text` stands for; raises CommandError (7 bad argument, 9 out of bounds)."""

    def check(self, value: Value) -> bool:
        """Tell whether a stored value is of this type and in range."""

    def describe(self) -> str:
        """Return the type and range in words."""


@dataclass(frozen=True)
class Bool:
    """0 or 1; also understands `true`, `false`, `on`, `off`."""

    def parse(self, text: str) -> Value:
        """Return True or False."""
        word = text.lower()
        if word in ("1", "true", "on"):
            return True
        if word in ("0", "false", "off"):
            return False
        raise CommandError(Code.BAD_ARGUMENT, f"'{text}' is neither 0 nor 1.")

    def check(self, value: Value) -> bool:
        """Tell whether it is a truth value."""
        return isinstance(value, bool)

    def describe(self) -> str:
        """Return the range in words."""
        return "0 or 1"


@dataclass(frozen=True)
class Int:
    """A whole number of `unit`, from `low` to `high`, both included."""

    low: int
    high: int
    unit: str = ""

    def parse(self, text: str) -> Value:
        """Return the number; decimal only."""
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
            raise CommandError(Code.BAD_ARGUMENT, f"'{text}' is no whole number.")
        number = int(text)
        if not self.low <= number <= self.high:
            raise CommandError(Code.OUT_OF_BOUNDS, f"{number} is out of bounds: {self.describe()}.")
        return number

    def check(self, value: Value) -> bool:
        """Tell whether it is a number in range."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def describe(self) -> str:
        """Return the range in words."""
        return f"{self.low} to {self.high}{' ' + self.unit if self.unit else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def parse(self, text: str) -> Value:
        """Return the word."""
        if text not in self.words:
            raise CommandError(Code.BAD_ARGUMENT, f"'{text}' must be one of: {', '.join(self.words)}.")
        return text

    def check(self, value: Value) -> bool:
        """Tell whether it is one of the words."""
        return isinstance(value, str) and value in self.words

    def describe(self) -> str:
        """Return the words."""
        return "one of: " + ", ".join(self.words)


@dataclass(frozen=True)
class Text:
    """Text of at most `max_bytes` bytes in UTF-8, all of it matching `pattern`; without control characters."""

    max_bytes: int
    pattern: str = ""
    meaning: str = "text"

    def parse(self, text: str) -> Value:
        """Return the text."""
        size_bytes = len(text.encode("utf-8", "surrogatepass"))
        if size_bytes > self.max_bytes:
            raise CommandError(Code.OUT_OF_BOUNDS, f"The value has {size_bytes} bytes: {self.describe()}.")
        if not self.check(text):
            raise CommandError(Code.BAD_ARGUMENT, f"'{text}' is not valid here: {self.describe()}.")
        return text

    def check(self, value: Value) -> bool:
        """Tell whether it is such a text."""
        if not isinstance(value, str) or any(not c.isprintable() for c in value):
            return False
        if len(value.encode("utf-8")) > self.max_bytes:
            return False
        return not value or not self.pattern or re.fullmatch(self.pattern, value, re.ASCII) is not None

    def describe(self) -> str:
        """Return the meaning and the longest length."""
        return f"{self.meaning}, at most {self.max_bytes} bytes"


@dataclass(frozen=True)
class Variable:
    """The one declaration of a variable."""

    name: str
    short: str
    kind: Kind
    default: Value
    help: str
    example: str = ""
    """A value to set it to, for `help`."""
    writable: bool = True
    dynamic: bool = False
    """Its value is asked for when it is shown (a getter of that name exists)."""
    safe_mode: bool = True
    saved: bool = True
    factory_reset: bool = True
    """Back to its default by a factory reset."""
    secret: bool = False
    session: bool = False
    """Every console session has its own value, which starts from the saved one."""
    aliases: tuple[str, ...] = ()
    """Older names."""

    def show(self, value: Value) -> str:
        """Return the value as `get` prints it."""
        if self.secret:
            return MASK if value else ""
        if isinstance(value, bool):
            return "1" if value else "0"
        return str(value)


def fact(name: str, short: str, help_text: str, *, safe_mode: bool = True) -> Variable:
    """Return the declaration of a read-only variable that is asked for when shown."""
    return Variable(
        name, short, Text(512), "", help_text,
        writable=False, dynamic=True, safe_mode=safe_mode, saved=False, factory_reset=False,
    )  # fmt: skip


class VariableTable:
    """Finds declarations by long name, short name, older name or group."""

    def __init__(self, variables: Iterable[Variable]) -> None:
        """Index the declarations; raises ValueError if two share a name or a default is not of its own type."""
        self.variables: tuple[Variable, ...] = tuple(sorted(variables, key=lambda v: v.name))
        self._by_words: dict[tuple[str, ...], Variable] = {}
        for variable in self.variables:
            if not variable.kind.check(variable.default):
                raise ValueError(f"{variable.name}: its default is not {variable.kind.describe()}")
            for name in (variable.name, variable.short, *variable.aliases):
                words = tuple(name.split())
                if self._by_words.setdefault(words, variable) is not variable:
                    raise ValueError(f"{variable.name} and {self._by_words[words].name} share the name {name}")
        self._by_name = {v.name: v for v in self.variables}
        self._groups = self._make_groups()

    def _make_groups(self) -> dict[str, tuple[Variable, ...]]:
        """Index every leading part of a name (`system`, `system.cmd`) and its short form (`sy`, `sy c`)."""
        groups: dict[str, list[Variable]] = {}
        for variable in self.variables:
            segments, shorts = variable.name.split("."), variable.short.split()
            for depth in range(1, len(segments)):
                groups.setdefault(".".join(segments[:depth]), []).append(variable)
                if len(shorts) == len(segments):
                    groups.setdefault(" ".join(shorts[:depth]), []).append(variable)
        return {name: tuple(members) for name, members in groups.items()}

    def __iter__(self) -> Iterator[Variable]:
        return iter(self.variables)

    def __getitem__(self, name: str) -> Variable:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def find(self, words: Sequence[str]) -> tuple[Variable, tuple[str, ...]] | None:
        """Return the variable that the words begin with, and the words after its name; the longest name wins."""
        for size in range(min(len(words), 8), 0, -1):
            variable = self._by_words.get(tuple(words[:size]))
            if variable is not None:
                return variable, tuple(words[size:])
        return None

    def group(self, words: Sequence[str]) -> tuple[Variable, ...]:
        """Return the variables of a group (`system`, `sy c`), or nothing if there is no such group."""
        return self._groups.get(" ".join(words), ())


class Values:
    """The values in RAM: what was set or loaded, else the default. Tells listeners of each change."""

    def __init__(self, table: VariableTable) -> None:
        self.table = table
        self._values: dict[str, Value] = {}
        self._unknown: dict[str, Value] = {}
        self._listeners: list[Callable[[str, Value], None]] = []

    def __getitem__(self, name: str) -> Value:
        if name in self._values:
            return self._values[name]
        return self.table[name].default

    def text(self, name: str) -> str:
        """Return the value as text (not masked)."""
        value = self[name]
        return ("1" if value else "0") if isinstance(value, bool) else str(value)

    def number(self, name: str) -> int:
        """Return the value of a number variable, in the unit of its declaration."""
        return int(self[name])

    def flag(self, name: str) -> bool:
        """Return the value of a 0/1 variable."""
        return bool(self[name])

    def set(self, name: str, value: Value) -> None:
        """Set a value of the right type; raises ValueError if it is not, KeyError for no such variable."""
        variable = self.table[name]
        if not variable.kind.check(value):
            raise ValueError(f"{name} cannot be {value!r}: {variable.kind.describe()}")
        changed = self[name] != value
        self._values[name] = value
        if changed:
            for listener in tuple(self._listeners):
                listener(name, value)

    def subscribe(self, listener: Callable[[str, Value], None]) -> Callable[[], None]:
        """Call `listener(name, value)` at each change, in the caller's thread; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def reset(self) -> None:
        """Put everything back to defaults that a factory reset puts back."""
        for variable in self.table:
            if variable.factory_reset:
                self.set(variable.name, variable.default)

    def to_saved(self) -> dict[str, Value]:
        """Return what belongs in flash: saved variables that differ from their default, and names not known here."""
        saved = dict(self._unknown)
        for variable in self.table:
            if variable.saved and self[variable.name] != variable.default:
                saved[variable.name] = self[variable.name]
        return saved

    def take_saved(self, saved: Mapping[str, Value]) -> tuple[str, ...]:
        """Replace all saved variables by what flash holds; returns one sentence for each value that was not usable."""
        problems: list[str] = []
        self._unknown = {}
        for variable in self.table:
            if not variable.saved:
                continue
            value = saved.get(variable.name, variable.default)
            if not variable.kind.check(value):
                problems.append(
                    f"{variable.name}: what was saved is not {variable.kind.describe()}; using the default."
                )
                value = variable.default
            self.set(variable.name, value)
        for name, value in saved.items():
            if name not in self.table and len(self._unknown) < MAX_UNKNOWN:
                self._unknown[name] = value
        return tuple(problems)
