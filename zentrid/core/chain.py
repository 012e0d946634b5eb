"""Releases that need another one first (`min_version`): the way there, and what is not installed without a person. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from zentrid.bundle.manifest import Manifest
from zentrid.core.version import Version

MAX_STEPS: Final = 4
"""So many releases may have to be installed before the one that is wanted."""


def needed_first(manifest: Manifest, running: Version) -> str:
    """Return the version that must be installed before this release; empty: none, it may be installed now."""
    lowest = manifest.min_version
    return str(lowest) if lowest is not None and running < lowest else ""


def floor_of_step(floor: Version, firmware: Version, running: Version) -> Version:
    """Return the oldest version that a step on the way to a newer release may have.

    `running`: the newest release that is part of what runs. Where applications alone have raised the floor, what counts is
    the `firmware` that runs: else a release of applications could lock out the firmware that a later one needs first.
    """
    return firmware if firmware < running == floor else floor


def too_many_steps(goal: str) -> str:
    """Return why the way to `goal` is not gone."""
    return (
        f"release {goal} needs more than {MAX_STEPS} others to be installed first; publish it with a lower min_version"
    )


def step_not_there(goal: str, step: str) -> str:
    """Return why the way to `goal` cannot be gone: its first step is not on the server."""
    return (
        f"release {goal} needs release {step} to be installed first, and the server does not have it for this device; "
        f"publish release {step}"
    )


def step_without_firmware(goal: str, step: str) -> str:
    """Return why the way to `goal` cannot be gone: what a release needs is firmware, and its first step has none."""
    return (
        f"release {goal} needs firmware of at least version {step}, and release {step} holds only applications and files; "
        f"publish release {goal} with another min_version"
    )


def not_by_itself(version: str, failed: str, tried: Iterable[str]) -> str:
    """Return why a release is not installed without a person; empty: it may be.

    `failed`: the release that was rolled back last. `tried`: in safe mode, those in the slots: they led there, and installing
    one of them again by itself would go round in circles.
    """
    if version == failed:
        why = "was installed before and had to be taken back"
    elif version in tried:
        why = "is on this device already and is what led to safe mode"
    else:
        return ""
    return f"release {version} {why}; it is not installed again by itself: wait for a newer one, or use: ota"
