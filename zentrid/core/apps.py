"""The boot application: its setting, its package's description, and what each of its ends means. Pure.

`system.boot.app` names a package (a folder with an `app.json`) or the absolute path of a program, and arguments for it.
Whatever ends by itself is an exception: an application is there to run, so an exit code of 0 is one too.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
from dataclasses import dataclass
from typing import Final

from zentrid.bundle.fields import Fields
from zentrid.errors import ZentriError

MAX_SETTING_CHARS: Final = 200
MAX_WORDS: Final = 32
MAX_WORD_CHARS: Final = 200
MAX_DESCRIPTION_BYTES: Final = 4096
"""The largest `app.json`."""
MAX_DESCRIPTION_CHARS: Final = 200
NAME_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_VERSION_PATTERN: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~-]{0,31}", re.ASCII)

FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 60.0
STEADY_S: Final = 60.0
"""An application that ran for so long is steady: its next end begins the delays anew."""
CANNOT_RUN: Final = 126
"""The exit code of a program that is there but cannot be run."""
NOT_FOUND: Final = 127
"""The exit code of a program that is not there."""
CORE_SIGNALS: Final = frozenset(
    (
        signal.SIGQUIT, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV,
        signal.SIGXCPU, signal.SIGXFSZ, signal.SIGSYS,
    )
)  # fmt: skip
"""The signals that leave a core."""


class AppError(ZentriError):
    """Something about an application that a person can put right."""

    reason = "application"


@dataclass(frozen=True)
class AppLimits:
    """What the boot application may use."""

    memory_mib: int
    """`system.app.memory`."""
    files: int
    """`system.app.files`: open files at the same time."""


@dataclass(frozen=True)
class AppCommand:
    """The setting, taken apart."""

    target: str
    """A package's name or an absolute path."""
    arguments: tuple[str, ...] = ()

    @property
    def is_path(self) -> bool:
        """A program and no package."""
        return self.target.startswith("/")

    @property
    def name(self) -> str:
        """What people call it: the package's name, or the last part of the path."""
        return self.target.rpartition("/")[2]


@dataclass(frozen=True)
class Package:
    """An application's `app.json`."""

    name: str
    version: str
    command: tuple[str, ...]
    """The program, absolute or relative to the package's folder, and its first arguments."""
    description: str = ""


@dataclass(frozen=True)
class AppInfo:
    """One application as `app list` shows it."""

    name: str
    version: str
    state: str
    """`running`, `starting`, `waiting` (for its next start), `stopped`, `off` (not the boot application) or `bad`."""
    boot: bool = False
    """This is the boot application."""
    pid: int | None = None
    since_s: float | None = None
    """So long it has been running."""
    restarts: int = 0
    """How often it was started again by itself since it became the boot application."""
    description: str = ""
    """What its package says; for a `bad` one, what is wrong with it."""
    source: str = "-"
    """Where its package is from: `bundle`, `data` (put there by hand) or `image`; `-` for none."""


def parse_command(setting: str) -> AppCommand | None:
    """Take `system.boot.app` apart; None if it is empty. Raises AppError.

    Blanks separate; single and double quotes and a backslash keep them, as in a shell. Nothing else of a shell is there.
    """
    if len(setting) > MAX_SETTING_CHARS:
        raise AppError(f"system.boot.app has {len(setting)} characters; {MAX_SETTING_CHARS} are allowed")
    try:
        words = shlex.split(setting, comments=False, posix=True)
    except ValueError:
        raise AppError("system.boot.app has a quote that is not closed, or ends with a backslash") from None
    if not words:
        return None
    if len(words) > MAX_WORDS:
        raise AppError(f"system.boot.app has {len(words)} words; {MAX_WORDS} are allowed")
    target = words[0]
    if any(not char.isprintable() for word in words for char in word):
        raise AppError("system.boot.app has characters that cannot be printed")
    if target.startswith("/"):
        if target.endswith("/") or not _is_plain(target[1:]):
            raise AppError(
                f"system.boot.app: {target} is no plain path of a program (no '..', no '//', no '/' at its end)"
            )
    elif not NAME_PATTERN.fullmatch(target):
        raise AppError(
            f"system.boot.app: '{target}' is no application's name (lower-case letters, digits, '-', '_', at most 32) "
            "and no absolute path"
        )
    return AppCommand(target, tuple(words[1:]))


def parse_package(data: bytes, folder_name: str) -> Package:
    """Read an `app.json` that lies in a folder called `folder_name`. Raises AppError with what is wrong."""
    if len(data) > MAX_DESCRIPTION_BYTES:
        raise AppError(f"app.json is larger than {MAX_DESCRIPTION_BYTES} bytes")
    try:
        fields = Fields(json.loads(data.decode("utf-8")), "", _field_error)
    except (ValueError, RecursionError):
        raise AppError("app.json is no JSON in UTF-8") from None
    name, version = fields.text("name"), fields.text("version")
    command = fields.texts("command", MAX_WORDS)
    description = fields.text("description") if fields.has("description") else ""
    fields.require_all_used()
    if not NAME_PATTERN.fullmatch(name):
        raise _field_error("name", "may have lower-case letters, digits, '-' and '_', at most 32")
    if name != folder_name:
        raise _field_error("name", f"is '{name}', but its folder is called '{folder_name}'")
    if not _VERSION_PATTERN.fullmatch(version):
        raise _field_error("version", "may have letters, digits, '.', '+', '~' and '-', at most 32")
    if len(description) > MAX_DESCRIPTION_CHARS or not description.isprintable():
        raise _field_error("description", f"must be one line of at most {MAX_DESCRIPTION_CHARS} characters")
    _check_program(command)
    return Package(name, version, command, description)


def _check_program(command: tuple[str, ...]) -> None:
    if not command:
        raise _field_error("command", "must name a program")
    if any(len(word) > MAX_WORD_CHARS or not word.isprintable() for word in command):
        raise _field_error("command", f"may have printable words of at most {MAX_WORD_CHARS} characters")
    if not _is_plain(command[0].removeprefix("/")):
        raise _field_error("command", "must begin with a path that has no '..', no '.' and no '//' in it")


def _is_plain(path: str) -> bool:
    """Tell whether every part of a relative path is a name."""
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _field_error(where: str, problem: str) -> AppError:
    return AppError(f"app.json: {where} {problem}" if where else f"app.json {problem}")


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next start: 1, 2, 4, … s, at most 60; anew after 60 s of steady running."""

    next_s: float = FIRST_DELAY_S

    def after(self, uptime_s: float) -> tuple[Backoff, float]:
        """Return the next back-off and the delay now, for an application that ran for `uptime_s`."""
        delay_s = FIRST_DELAY_S if uptime_s >= STEADY_S else self.next_s
        return Backoff(min(delay_s * 2, LONGEST_DELAY_S)), delay_s


@dataclass(frozen=True)
class Ending:
    """How a process ended: by a signal or with an exit code."""

    exit_code: int | None
    signal: int | None
    asked: bool = False
    """We wanted it to end."""
    out_of_memory_mib: int | None = None
    """The kernel ended it because it used more than so much."""

    @staticmethod
    def of(status: int, *, asked: bool = False, out_of_memory_mib: int | None = None) -> Ending:
        """Make it from a status as Python gives it: negative for a signal."""
        if status < 0:
            return Ending(None, -status, asked, out_of_memory_mib)
        return Ending(status, None, asked, out_of_memory_mib)

    @property
    def is_exception(self) -> bool:
        """Every end by itself is one, exit code 0 too; none that was asked for is."""
        return not self.asked

    @property
    def leaves_core(self) -> bool:
        """The kernel wrote a core for it."""
        return self.signal in CORE_SIGNALS

    def sentence(self, name: str) -> str:
        """Say how the application called `name` ended, without a full stop."""
        if self.asked:
            return f"the boot application {name} was stopped"
        if self.out_of_memory_mib is not None:
            return (
                f"the boot application {name} was ended because it used more than its {self.out_of_memory_mib} MiB of "
                "memory (system.app.memory)"
            )
        if self.signal is not None:
            return f"the boot application {name} ended by signal {self.signal}"
        return f"the boot application {name} ended with exit code {self.exit_code}"


def again_in(delay_s: float) -> str:
    """Return the end of a sentence that says when the next start is."""
    return f"; started again in {delay_s:g} s"
