"""Reads what this device is: release (verified root), identity (manufacture), and how this boot began (kernel arguments)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zentrid.core import names
from zentrid.errors import ZentriError
from zentrid.ports import Identity, Release

MAX_FILE_BYTES: Final = 64 * 1024
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAC = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}")


class IdentityError(ZentriError):
    """The identity partition is missing, or what is on it is no identity."""

    reason = "bad_identity"


@dataclass(frozen=True)
class BootArguments:
    """What the boot script appended to the kernel's arguments."""

    slot: names.SlotName
    warm: bool
    state_lost: bool
    why: str = "slot"
    """Why this system was chosen, see `names.ARG_WHY`."""


def read_boot_arguments(path: Path = Path("/proc/cmdline")) -> BootArguments:
    """Return the boot script's arguments. A missing slot means the safe-mode system: the careful choice."""
    words = dict(word.split("=", 1) for word in path.read_text().split() if "=" in word)
    named = words.get(names.ARG_SLOT, "")
    slot: names.SlotName = "a" if named == "a" else "b" if named == "b" else "r"
    lost, why = (
        words.get(names.ARG_STATE_LOST) == "1",
        words.get(names.ARG_WHY, "slot" if slot in names.SLOTS else "noslot"),
    )
    return BootArguments(slot, words.get(names.ARG_WARM) == "1", lost, why)


def read_release(path: Path = Path("/etc/zentri/release.json")) -> Release:
    """Return what the verified root says about itself. It is part of the signed image: a damaged one is a bug in the build."""
    values = json.loads(_read(path))
    return Release(**{name: values[name] for name in Release.__dataclass_fields__})


def read_identity(folder: Path = Path("/identity")) -> Identity:
    """Return the identity. Raises IdentityError with the reason if manufacture did not write a whole one."""
    try:
        values: dict[str, Any] = json.loads(_read(folder / "identity.json"))
        identity = Identity(
            uuid=str(values["uuid"]).lower(),
            mac=str(values["mac"]).upper(),
            dms_host=str(values["dms_host"]),
            dms_port=int(values["dms_port"]),
            made=str(values.get("made", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise IdentityError(f"the device has no usable identity ({error}); provision it again") from error
    if not _UUID.fullmatch(identity.uuid) or not _MAC.fullmatch(identity.mac):
        raise IdentityError("the identity's UUID or MAC address is malformed; provision the device again")
    return identity


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(MAX_FILE_BYTES).decode()
