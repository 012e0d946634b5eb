"""Errors that a caller is told: each has an HTTP status, a stable word and one sentence saying what to do."""

from __future__ import annotations


class DmsError(Exception):
    """The request cannot be done; `str(error)` is the sentence for a person."""

    status = 400
    reason = "bad_request"

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BadRequestError(DmsError):
    """The request does not say what is needed, or says it wrongly."""


class UnauthenticatedError(DmsError):
    """Nobody is signed in, or the token is unknown."""

    status = 401
    reason = "unauthenticated"


class ForbiddenError(DmsError):
    """The caller is known and may not do this."""

    status = 403
    reason = "forbidden"


class NotFoundError(DmsError):
    """There is no such thing, or none that the caller may know of."""

    status = 404
    reason = "not_found"


class ConflictError(DmsError):
    """The thing is in a state that does not allow this."""

    status = 409
    reason = "conflict"


class TooLargeError(DmsError):
    """Something is over its limit; the sentence names the limit."""

    status = 413
    reason = "too_large"


class UploadRefusedError(DmsError):
    """A bundle or metadata file did not pass its checks; nothing was kept."""

    status = 422
    reason = "upload_refused"


class TooManyTriesError(DmsError):
    """Too many wrong passwords or tokens from one place."""

    status = 429
    reason = "too_many_tries"


class TooManyReportsError(DmsError):
    """A device reports more in a minute than any device in order would."""

    status = 429
    reason = "too_many_reports"


class NotYetError(DmsError):
    """What was asked for is being made; `retry_after_s` says when to ask again."""

    status = 503
    reason = "not_yet"


class SetupError(Exception):
    """The server cannot start as it is set up; the sentence says what to change."""
