"""What can go wrong with an update or with the server, as a person is told it; each knows its `dms.ota_result`."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Final

from zentrid.core.network import NetworkError, NetworkNotSetError
from zentrid.core.text import printable as text_for_people
from zentrid.errors import ZentriError


class Result(IntEnum):
    """The values of `dms.ota_result`."""

    NONE = 0
    UPDATED = 1
    NO_UPDATE_REQUIRED = 2
    GENERAL_FAILURE = 3
    NO_NETWORK_SET = 4
    JOIN_FAILED = 5
    CANNOT_REACH_DMS = 6
    DMS_403 = 7
    DMS_400 = 8
    DMS_404 = 9


_STATUS_RESULTS: Final = {403: Result.DMS_403, 400: Result.DMS_400, 404: Result.DMS_404}
_MAX_MESSAGE_CHARS: Final = 300


def printable(text: str, limit_chars: int = _MAX_MESSAGE_CHARS) -> str:
    """Return text that came from outside as one line without control characters, cut to the limit."""
    return text_for_people(text[:limit_chars])


class UpdateError(ZentriError):
    """An update could not be carried out; nothing that is active was changed."""

    reason = "failed"
    result = Result.GENERAL_FAILURE


class UpdateBusyError(UpdateError):
    """An update is running already."""

    reason = "busy"

    def __init__(
        self, sentence: str = "an update is running already; wait for it, or cancel it with: ota cancel"
    ) -> None:
        super().__init__(sentence)


class UpdateRefusedError(UpdateError):
    """The release must not be installed on this device; `reason` says why in one word."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class NotByItselfError(UpdateError):
    """Only a person may install this release: `dms.auto` passes it over, and nothing is reported."""

    reason = "not_by_itself"


class UntrustedError(UpdateError):
    """Signed metadata or something it covers is not right; the sentence says which."""

    reason = "bad_signature"

    def __init__(self, sentence: str, reason: str = "bad_signature") -> None:
        super().__init__(sentence)
        self.reason = reason


class PayloadError(UpdateError):
    """A payload does not hold what the signed manifest says, or cannot be written; the sentence says which part."""

    reason = "bad_payload"


class WorkerDiedError(UpdateError):
    """The update worker ended without an answer."""

    reason = "worker_died"


class UpdateCancelledError(UpdateError):
    """The update was cancelled by a person."""

    reason = "cancelled"

    def __init__(self) -> None:
        super().__init__("the update was cancelled; nothing was activated")


class DmsError(UpdateError):
    """The Device Management Server could not be reached or said no."""

    reason = "dms"


class DmsUnreachableError(DmsError):
    """No usable connection to the server: network, name, certificate, or time-out."""

    reason = "dms_unreachable"
    result = Result.CANNOT_REACH_DMS


class NoNetworkSetError(DmsUnreachableError):
    """The server cannot be reached because the settings name no network to join."""

    reason = "no_network_set"
    result = Result.NO_NETWORK_SET


class NetworkJoinError(DmsUnreachableError):
    """The server cannot be reached because the network that is set cannot be joined."""

    reason = "join_failed"
    result = Result.JOIN_FAILED


def unreachable_because(trouble: NetworkError | None) -> DmsUnreachableError | None:
    """Return the network's trouble as the reason why a server cannot be reached; None for none."""
    if trouble is None:
        return None
    kind = NoNetworkSetError if isinstance(trouble, NetworkNotSetError) else NetworkJoinError
    return kind(str(trouble))


class DmsRefusedError(DmsError):
    """The server answered with an error. `str()` is its answer in the form that is printed on the console."""

    reason = "dms_refused"

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = printable(message)
        super().__init__(json.dumps({"result": "fail", "message": self.message}, separators=(",", ":")))
        self.result = _STATUS_RESULTS.get(status, Result.GENERAL_FAILURE)
