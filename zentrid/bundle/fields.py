"""Typed access to a JSON object from outside: each member is asked for by name and type, and none is left over."""

from __future__ import annotations

from collections.abc import Callable

from zentrid.core.version import BadVersionError, Version, parse_version

ErrorMaker = Callable[[str, str], Exception]
"""Makes the error to raise from the field's dotted name and the problem."""


class Fields:
    """One JSON object at `where`; methods return a member of the right type or raise the error that `error` makes."""

    def __init__(self, value: object, where: str, error: ErrorMaker) -> None:
        self._where = where
        self._error = error
        self._left: dict[str, object] = {}
        if not isinstance(value, dict):
            raise error(where, "must be a JSON object")
        self._left.update(value)

    def fail(self, name: str, problem: str) -> Exception:
        """Return the error to raise about member `name`."""
        return self._error(f"{self._where}.{name}" if self._where else name, problem)

    def has(self, name: str) -> bool:
        """Tell whether the member is there and was not asked for yet."""
        return name in self._left

    def _take(self, name: str) -> object:
        if name not in self._left:
            raise self.fail(name, "is missing")
        return self._left.pop(name)

    def text(self, name: str) -> str:
        """Return a string."""
        value = self._take(name)
        if not isinstance(value, str):
            raise self.fail(name, "must be a string")
        return value

    def whole_number(self, name: str) -> int:
        """Return an integer; true and false are none."""
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fail(name, "must be a whole number")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise self.fail(name, "must be true or false")
        return value

    def array(self, name: str, max_length: int) -> list[object]:
        """Return an array of at most `max_length` members."""
        value = self._take(name)
        if not isinstance(value, list):
            raise self.fail(name, "must be an array")
        if len(value) > max_length:
            raise self.fail(name, f"has {len(value)} members, the limit is {max_length}")
        return value

    def texts(self, name: str, max_length: int) -> tuple[str, ...]:
        """Return an array of strings."""
        found: list[str] = []
        for value in self.array(name, max_length):
            if not isinstance(value, str):
                raise self.fail(name, "must hold strings only")
            found.append(value)
        return tuple(found)

    def version(self, name: str) -> Version:
        """Return a version that is written as a string."""
        text = self.text(name)
        try:
            return parse_version(text)
        except BadVersionError:
            raise self.fail(name, f"{text[:32]!r} is no version like 1.2.3") from None

    def object(self, name: str) -> Fields:
        """Return an object as `Fields` of its own, whose `require_all_used` must be called too."""
        return Fields(self._take(name), f"{self._where}.{name}" if self._where else name, self._error)

    def null(self, name: str) -> bool:
        """Tell whether the member is null, and if so be done with it; the error if it is missing."""
        if name not in self._left:
            raise self.fail(name, "is missing")
        if self._left[name] is not None:
            return False
        del self._left[name]
        return True

    def require_all_used(self) -> None:
        """Raise the error if the object has a member that nobody asked for."""
        for name in self._left:
            raise self.fail(name[:40], "is unknown")
