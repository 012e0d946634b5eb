"""The two ways in which work with a board goes wrong: the machinery fails, or the board does not do what it should."""

from __future__ import annotations


class MachineError(Exception):
    """The driver or QEMU cannot do what was asked: no image, no process, no answer on a control socket.

    The message says what is wrong and what to do next. A test that gets this one says nothing about the product.
    """


class BoardAssertionError(AssertionError):
    """The board runs, but did not do what was expected of it. This is the failure that a test looks for."""


class BadConsoleError(BoardAssertionError):
    """The console showed something that must never be there unasked: a panic, a traceback, a reset nobody wanted."""

    def __init__(self, pattern: str, line: str) -> None:
        self.pattern = pattern
        self.line = line
        super().__init__(
            f"the console showed {line!r}; a test that wants this puts it inside board.expecting({pattern!r})"
        )


class BrokenBoardError(BoardAssertionError):
    """A board that has failed before was used again; the first failure is the cause of this one."""


class DeadlineError(BoardAssertionError):
    """What was waited for did not come in time."""
