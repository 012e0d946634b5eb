r"""The command line's grammar: words, quotes, escapes, options and arguments. Pure; raises CommandError only.

Words are separated by blanks. Double quotes keep blanks together. A backslash makes `\"`, `\\`, `\ ` and `\xHH` (one
byte); before anything else it stands for itself. A command that has no options takes words with a leading `-` as plain
arguments; `--` ends the options of one that has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from zentrid.core.framing import Code
from zentrid.errors import ZentriError

MAX_LINE_BYTES: Final = 2048
MAX_WORDS: Final = 64
_HEX: Final = "0123456789abcdefABCDEF"


class CommandError(ZentriError):
    """A command line that could not be carried out: `code` is for machines, the sentence for people."""

    reason = "command"

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Argument:
    """One positional argument of a command."""

    name: str
    help: str
    optional: bool = False
    many: bool = False
    """Takes all remaining words; only the last argument may."""
    secret: bool = False
    """Its value never reaches history or logs."""
    choices: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The argument as it stands in a usage line."""
        label = "|".join(self.choices) if self.choices else self.name
        if self.optional:
            return f"[{label}]"
        return label if self.choices else f"<{label}>"


@dataclass(frozen=True)
class Option:
    """One switch of a command, such as `-f` or `-b version`."""

    letter: str
    help: str
    value: str | None = None
    """What its value is called; None for a plain switch."""

    @property
    def usage(self) -> str:
        """The option as it stands in a usage line."""
        return f"[-{self.letter} {self.value}]" if self.value else f"[-{self.letter}]"


@dataclass(frozen=True)
class Arguments:
    """What a command line gave for a signature."""

    values: Mapping[str, str] = field(default_factory=dict)
    """Argument name to word; an optional one that was not given is missing."""
    rest: tuple[str, ...] = ()
    """The words of an argument declared `many`."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Option letter to its value, empty for a plain switch."""

    def flag(self, letter: str) -> bool:
        """Tell whether the switch was given."""
        return letter in self.options


@dataclass(frozen=True)
class Signature:
    """The arguments and options that a command takes."""

    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()

    def usage(self, name: str) -> str:
        """Return the usage line of the command called `name`."""
        return " ".join([name, *(o.usage for o in self.options), *(a.usage for a in self.arguments)])

    def parse(self, words: Sequence[str], name: str) -> Arguments:
        """Sort words into options and arguments; raises CommandError with code 4, 5, 6 or 7, naming the usage."""
        options, plain = self._split_options(words, name)
        many = bool(self.arguments) and self.arguments[-1].many
        singles = self.arguments[:-1] if many else self.arguments
        required = sum(1 for a in self.arguments if not a.optional)
        if len(plain) < required:
            missing = [a for a in self.arguments if not a.optional][len(plain)]
            raise CommandError(
                Code.TOO_FEW_ARGUMENTS, f"{name} needs {missing.name} ({missing.help}). Usage: {self.usage(name)}"
            )
        if len(plain) > len(singles) and not many:
            raise CommandError(
                Code.TOO_MANY_ARGUMENTS,
                f"{name} takes no more than {len(singles)} arguments; put one that has blanks in double quotes. "
                f"Usage: {self.usage(name)}",
            )
        values: dict[str, str] = {}
        for argument, word in zip(singles, plain, strict=False):
            if argument.choices and word not in argument.choices:
                raise CommandError(
                    Code.BAD_ARGUMENT, f"{argument.name} must be one of: {', '.join(argument.choices)}; not '{word}'."
                )
            values[argument.name] = word
        return Arguments(values, tuple(plain[len(singles) :]), options)

    def _split_options(self, words: Sequence[str], name: str) -> tuple[dict[str, str], list[str]]:
        known = {o.letter: o for o in self.options}
        options: dict[str, str] = {}
        plain: list[str] = []
        queue = list(words)
        while queue:
            word = queue.pop(0)
            if not known or len(word) < 2 or word[0] != "-":
                plain.append(word)
            elif word == "--":
                plain += queue
                break
            else:
                self._take_letters(word, name, known, queue, options)
        return options, plain

    def _take_letters(
        self, word: str, name: str, known: Mapping[str, Option], queue: list[str], options: dict[str, str]
    ) -> None:
        """Take one word of switches such as `-fc`; the value of an option is the rest of its word or the next word."""
        for position, letter in enumerate(word[1:], start=1):
            option = known.get(letter)
            if option is None:
                raise CommandError(Code.UNKNOWN_OPTION, f"{name} has no option -{letter}. Usage: {self.usage(name)}")
            if option.value is None:
                options[letter] = ""
                continue
            value = word[position + 1 :] or (queue.pop(0) if queue else "")
            if not value:
                raise CommandError(
                    Code.TOO_FEW_ARGUMENTS, f"-{letter} needs a {option.value}. Usage: {self.usage(name)}"
                )
            options[letter] = value
            return


def split_words(line: str) -> list[str]:
    """Cut a command line into words; raises CommandError (parse error, buffer overflow) and nothing else."""
    if len(line.encode("utf-8", "surrogatepass")) > MAX_LINE_BYTES:
        raise CommandError(Code.BUFFER_OVERFLOW, f"The line is longer than {MAX_LINE_BYTES} bytes; send a shorter one.")
    words: list[str] = []
    current: bytearray | None = None
    quoted = False
    at = 0
    while at < len(line):
        char = line[at]
        if char in " \t\r\n" and not quoted:
            if current is not None:
                words.append(_decode(current))
                current = None
            at += 1
            continue
        current = bytearray() if current is None else current
        if char == '"':
            quoted = not quoted
            at += 1
        elif char == "\\":
            at += _escape(line, at, current)
        else:
            current += char.encode("utf-8", "surrogatepass")
            at += 1
    if quoted:
        raise CommandError(Code.PARSE_ERROR, 'A double quote is not closed; end the quoted text with ".')
    if current is not None:
        words.append(_decode(current))
    if len(words) > MAX_WORDS:
        raise CommandError(Code.PARSE_ERROR, f"The line has {len(words)} words; {MAX_WORDS} are allowed.")
    return words


def _escape(line: str, at: int, current: bytearray) -> int:
    """Take the backslash at `at` into `current`; return how many characters that used up."""
    following = line[at + 1 : at + 2]
    if following in ('"', "\\", " ") and following:
        current += following.encode("ascii")
        return 2
    digits = line[at + 2 : at + 4]
    if following == "x" and len(digits) == 2 and all(d in _HEX for d in digits):
        current.append(int(digits, 16))
        return 4
    current += b"\\"
    return 1


def _decode(raw: bytearray) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(Code.PARSE_ERROR, "The line is not valid UTF-8; send text in UTF-8.") from None


def quote(word: str) -> str:
    """Return `word` so that `split_words` gives it back as one word."""
    if word and not any(c in ' "\\\t\r\n' for c in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
