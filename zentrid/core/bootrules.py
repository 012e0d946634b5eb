"""The rules of the boot script as tables: what the ROM does with a boot state, a kind of reset, a button and three systems.

Source: `buildroot_external/board/common/boot.script`, rule by rule under the same numbers. This is its specification in a form
that can be enumerated: `bootmodel.py` walks through the tables, and a test runs the real ROM against that. Nothing on the device
uses it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from zentrid.core.names import MAX_COLD_BOOTS, SlotName
from zentrid.core.version import Version


class Button(Enum):
    """What the button of GPIO 0 does while the boot script looks at it."""

    UP = auto()
    HELD = auto()
    """For 5 s and more."""
    RELEASED = auto()
    """Down at first, let go before 5 s have passed."""


class Fit(Enum):
    """What a kernel partition holds."""

    GOOD = auto()
    """A signed system."""
    BAD = auto()
    """One that does not verify."""
    EMPTY = auto()
    """No system."""


class System(NamedTuple):
    """A kernel partition: what it holds, and the release's version in it."""

    fit: Fit
    version: Version = Version(1, 0, 0)


class Ram(NamedTuple):
    """The words that outlive a reset and not a power cut. Each is 0 after a power-on."""

    wait: int = 0
    """How many pauses there were because nothing verified, 0 to 4."""
    safe: int = 0
    """Starts of the safe-mode system in a row that ended in an exception, 0 to 3."""
    button: int = 0
    """1: the button was heard and has not been seen up since."""
    unsaved: int = 0
    """Starts in a row whose boot state could not be written, 0 to 9."""
    turn: int = 0
    """1: when nothing else is left, slot B is tried first the next time."""


NO_RAM: Final = Ram()


class Say(Enum):
    """What the ROM does that can be seen on its console. A step's subject, if it has one, is in brackets."""

    STATE_LOST = auto()
    BUTTON_DOWN = auto()
    BUTTON_HEARD = auto()
    BUTTON_RELEASED = auto()
    BUTTON_STILL_DOWN = auto()
    SAFE_MODE = auto()
    """[why] The safe-mode system is chosen."""
    SAFE_MODE_PASSED = auto()
    GIVEN_UP = auto()
    """[slot] Too many starts that never became healthy."""
    NOT_WRITTEN = auto()
    """The boot state could not be written."""
    TRY = auto()
    """[slot]"""
    HOLDS_NONE = auto()
    """[slot]"""
    TOO_OLD = auto()
    """[slot] Older than the boot floor."""
    BAD_FIT = auto()
    """[slot] Does not verify."""
    STARTS = auto()
    """[slot] The kernel runs: the end."""
    LAST_RESORT = auto()
    """Any slot that verifies."""
    WAIT = auto()
    """[seconds] Nothing verifies: the board waits and starts again."""


class Step(NamedTuple):
    """One thing that the ROM does."""

    say: Say
    subject: str = ""


# --- rule 1: the button -------------------------------------------------------------------------------------------
class _Heard(NamedTuple):
    says: tuple[Say, ...]
    asks_reset: bool
    heard_after: int


BUTTON: Final[Mapping[tuple[Button, bool], _Heard]] = {
    # (button, heard before and not let go since); one hold asks for one factory reset
    (Button.UP, False): _Heard((), False, 0),
    (Button.UP, True): _Heard((), False, 0),
    (Button.HELD, False): _Heard((Say.BUTTON_DOWN, Say.BUTTON_HEARD), True, 1),
    (Button.HELD, True): _Heard((Say.BUTTON_STILL_DOWN,), False, 1),
    (Button.RELEASED, False): _Heard((Say.BUTTON_DOWN, Say.BUTTON_RELEASED), False, 0),
    (Button.RELEASED, True): _Heard((Say.BUTTON_STILL_DOWN,), False, 1),
}


# --- rule 2: what the last boot came to ---------------------------------------------------------------------------
class Ending(Enum):
    """How the last boot ended."""

    CLEAN = auto()
    """Shut down, then power."""
    POWER_CUT = auto()
    ASKED = auto()
    """A restart that was asked for."""
    EXCEPTION = auto()
    """Panic, watchdog, a block that did not verify."""


ENDING: Final[Mapping[tuple[bool, bool], Ending]] = {
    # (warm, running)
    (False, False): Ending.CLEAN,
    (False, True): Ending.POWER_CUT,
    (True, False): Ending.ASKED,
    (True, True): Ending.EXCEPTION,
}

COUNTS_FAULT: Final[Mapping[tuple[bool, int], bool]] = {
    # (the system that failed was good once, room for faults: 0, 1, or 2 and more)
    (True, 0): False,
    (True, 1): True,
    (True, 2): True,
    (False, 0): False,
    (False, 1): False,
    (False, 2): True,
}
"""A slot that was never good is judged by its tries, never by the eighth fault."""

COLD_STRIKES: Final[Mapping[int, int]] = {MAX_COLD_BOOTS: 1, 2 * MAX_COLD_BOOTS: 1}
"""Slots that are given up, by the number of this cold boot since the board was healthy."""

UNSAVED_STRIKES: Final = (0, 0, 0, 1, 1, 1, 2, 2, 2)
"""Slots that are passed over, by how many starts before this warm one could not write the boot state; after that from 0 on."""

# --- rule 3: the safe-mode system ---------------------------------------------------------------------------------
WHY_SAFE: Final[Mapping[tuple[bool, bool], str]] = {
    # (eight faults, safe mode asked for)
    (False, False): "",
    (False, True): "asked",
    (True, False): "faults",
    (True, True): "faults",
}

SAFE_STARTS: Final = 3
"""So many in a row may end in an exception; then it is passed over once."""


# --- rule 4: the slots --------------------------------------------------------------------------------------------
class Verdict(Enum):
    """What is done with a slot."""

    SKIP = auto()
    GIVE_UP = auto()
    TRY = auto()


SLOT: Final[Mapping[tuple[bool, bool], Verdict]] = {
    # (has tries left, there is a strike)
    (False, False): Verdict.SKIP,
    (False, True): Verdict.SKIP,
    (True, False): Verdict.TRY,
    (True, True): Verdict.GIVE_UP,
}

SPENDS_TRY: Final[Mapping[tuple[bool, bool], bool]] = {
    # (the last boot ended in an exception, the slot was good once)
    (False, False): True,
    (False, True): False,
    (True, False): True,
    (True, True): True,
}

TRIAL: Final[Mapping[tuple[Fit, bool], Say]] = {
    # (what the partition holds, older than the boot floor); the version is looked at before the signature
    (Fit.EMPTY, False): Say.HOLDS_NONE,
    (Fit.EMPTY, True): Say.HOLDS_NONE,
    (Fit.GOOD, True): Say.TOO_OLD,
    (Fit.BAD, True): Say.TOO_OLD,
    (Fit.BAD, False): Say.BAD_FIT,
    (Fit.GOOD, False): Say.STARTS,
}

# --- rule 5: nothing is left --------------------------------------------------------------------------------------
LAST_RESORT: Final[Mapping[int, tuple[SlotName, SlotName]]] = {0: ("a", "b"), 1: ("b", "a")}
"""The order by the RAM word `turn`: they take turns, because one that verifies may still be sick."""

WAITS_S: Final = (10, 20, 40, 80, 160)
