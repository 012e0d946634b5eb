"""What a device says about a fault, typed and bounded."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from dms_server.body import Body
from zentrid.core.text import printable

FRAMES_MAX = 32
MODULE_MAX_CHARS = 200
TEXT_MAX_CHARS = 4096
DETAIL_MAX_CHARS = 160
CAUSE_MAX_CHARS = 64
ADDRESS_MAX = 2**64 - 1
UPTIME_MAX_S = 2**40


def lines(text: str) -> str:
    """Return text with lines and tabs, every other character that does not show replaced: it goes to logs and terminals."""
    return printable(text, keep="\n\t")


Line = AfterValidator(printable)


class FrameBody(Body):
    """One place in a program, as in `zentrid.ports.Frame`."""

    module: Annotated[str, Field(max_length=MODULE_MAX_CHARS), Line]
    build_id: Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")] = ""
    address: Annotated[int, Field(ge=0, le=ADDRESS_MAX, strict=True)]


class FaultBody(Body):
    """One fault; frames innermost first."""

    cause: Annotated[str, Field(min_length=1, max_length=CAUSE_MAX_CHARS), Line]
    slot: Annotated[str, Field(pattern=r"^[abr?]$")]
    version: Annotated[str, Field(max_length=20), Line]
    uptime_s: Annotated[int, Field(ge=0, le=UPTIME_MAX_S, strict=True)]
    utc: Annotated[str, Field(max_length=40), Line] = ""
    frames: Annotated[tuple[FrameBody, ...], Field(max_length=FRAMES_MAX)] = ()
    text: Annotated[str, Field(max_length=TEXT_MAX_CHARS), AfterValidator(lines)] = ""
