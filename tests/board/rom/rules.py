"""Runs one case of the model against the ROM and says where the two differ."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from tests.board.rom.machine import RomMachine, Seen
from zentrid.core import names
from zentrid.core.bootmodel import After, Before, boot
from zentrid.core.bootrules import Button, Fit, Say, Step, System
from zentrid.core.bootstate import encode
from zentrid.core.names import SlotName
from zentrid.core.version import Version

CONSOLE: Final[dict[Say, str]] = {
    Say.STATE_LOST: r"zentri: boot state lost, using defaults",
    Say.BUTTON_DOWN: r"zentri: button down; held for 5 s it asks for a factory reset",
    Say.BUTTON_HEARD: r"zentri: factory reset asked for by the button",
    Say.BUTTON_RELEASED: r"zentri: button released early, nothing changed",
    Say.BUTTON_STILL_DOWN: r"zentri: the button is still down since it was heard; let it go first",
    Say.SAFE_MODE: r"zentri: starting the safe-mode system \((\w+)\)",
    Say.SAFE_MODE_PASSED: r"zentri: the safe-mode system failed three times, passing it over",
    Say.GIVEN_UP: r"zentri: slot (\w) gave up after starts that never became healthy",
    Say.NOT_WRITTEN: r"zentri: boot state not written",
    Say.TRY: r"zentri: trying slot (\w)",
    Say.HOLDS_NONE: r"zentri: slot (\w) holds no system",
    Say.TOO_OLD: r"zentri: slot (\w) is older than the boot floor",
    Say.BAD_FIT: r"zentri: slot (\w) does not verify",
    Say.STARTS: r"tiny: started with <test=\w+ zentri\.slot=(\w) .*>",
    Say.LAST_RESORT: r"zentri: the safe-mode system does not start; trying any slot that verifies",
    Say.WAIT: r"zentri: nothing verifies; trying again in (\d+) s",
}
SAYS: Final = {say: re.compile(pattern) for say, pattern in CONSOLE.items()}
ARGUMENTS: Final = re.compile(r"tiny: started with <test=\w+ (.*)>")
OTHER_LINES: Final = re.compile(r"zentri: (warm=[01] exception=[01] faults=\w+ cold=\w+ order=[AB] [AB] a=\w b=\w)")


@dataclass
class Contents:
    """What the kernel partitions can hold, as bytes."""

    good: bytes
    old: bytes
    bad: dict[SlotName, tuple[bytes, ...]]
    """For each slot: kernel, arguments and signature changed."""
    empty: tuple[bytes, ...]
    hanging: bytes
    stopping: bytes
    """Hangs too, after trying to stop the watchdog."""
    held: dict[tuple[int, str], bytes] = field(default_factory=dict)
    """What each machine's partitions hold now."""

    def of(self, system: System, slot: SlotName, turn: int) -> bytes:
        """Return a content that fits; where there are several, they take turns."""
        if system.fit is Fit.BAD:
            return self.bad[slot][turn % len(self.bad[slot])]
        if system.fit is Fit.EMPTY:
            return self.empty[turn % len(self.empty)]
        return self.old if system.version == Version(1, 0, 0) else self.good

    def write(self, machine: RomMachine, slot: str, content: bytes) -> None:
        """Write a kernel partition if it holds something else."""
        if self.held.get((id(machine), slot)) != content:
            machine.write(f"kernel_{slot}", 0, content)
            self.held[id(machine), slot] = content


def steps_seen(console: str) -> tuple[Step, ...]:
    """Return what the console shows the ROM to have done. ValueError for a line of the ROM that is none of the model's."""
    found = []
    for line in console.splitlines():
        steps = [
            Step(say, *match.groups())
            for say, pattern in SAYS.items()
            if (match := pattern.fullmatch(line)) is not None
        ]
        if not steps and line.startswith("zentri:") and not OTHER_LINES.fullmatch(line):
            raise ValueError(f"the model does not know {line!r}")
        found += steps
    return tuple(found)


def arguments_seen(console: str) -> dict[str, str] | None:
    """Return the kernel arguments that the script appended; None: no kernel ran."""
    match = ARGUMENTS.search(console)
    return dict(word.split("=", 1) for word in match[1].split()) if match else None


def set_up(machine: RomMachine, contents: Contents, before: Before, turn: int = 0) -> None:
    """Write boot state and kernel partitions as a case wants them."""
    for number, copy in enumerate(before.copies):
        machine.write_copy(number, None if copy is None else encode(copy))
    for slot, system in before.systems.items():
        contents.write(machine, slot, contents.of(system, slot, turn))


def run(machine: RomMachine, contents: Contents, before: Before, turn: int = 0) -> Seen:
    """Let the ROM do one case. The button is let go as soon as the ROM has seen it, if the case wants that."""
    set_up(machine, contents, before, turn)
    machine.begin(warm=before.warm, ram=before.ram, button=before.button is not Button.UP)
    released = before.button is Button.RELEASED and not before.ram.button
    if released:
        machine.wait_for("zentri: button down")
        machine.press(down=False)
    waits = boot(before).arguments is None
    return machine.finish("zentri: nothing verifies" if waits else "")


def differences(before: Before, after: After, seen: Seen) -> list[str]:
    """Return each thing in which the ROM did not do what the model says."""
    writes = seen.console.count("virtio write: device 0")
    lamp = Step(Say.BUTTON_HEARD) in after.steps
    pairs = {
        "steps": (after.steps, steps_seen(seen.console)),
        "arguments": (after.arguments, arguments_seen(seen.console)),
        "copies": (after.copies, seen.copies),
        "writes": (after.writes, writes),
        "ram": (after.ram, seen.ram),
        "lamp": (lamp, seen.lamp),
        "reason": ("" if after.arguments is None else "guest-shutdown", seen.reason),
    }
    return [f"{name}: model {model!r}, ROM {rom!r}" for name, (model, rom) in pairs.items() if model != rom]


def check(machine: RomMachine, contents: Contents, before: Before, turn: int = 0) -> None:
    """Run one case; AssertionError with every difference if the ROM does not do what the model says."""
    seen = run(machine, contents, before, turn)
    found = differences(before, boot(before), seen)
    assert not found, "\n".join((f"case: {before!r}", *found, seen.console))


def appended(slot: str, warm: int, why: str, *, lost: int = 0, reset: int = 0) -> dict[str, str]:
    """Return kernel arguments as the script appends them."""
    return {
        names.ARG_SLOT: slot, names.ARG_WARM: str(warm), names.ARG_STATE_LOST: str(lost), names.ARG_RESET: str(reset),
        names.ARG_WHY: why,
    }  # fmt: skip
