"""The root of zentrid's errors: each carries data and one sentence that tells a person what is wrong and what to do."""

from __future__ import annotations


class ZentriError(Exception):
    """Something went wrong that a person or a server must be told; `str(error)` is that sentence."""

    reason = "error"
    """A short stable word for machines (`not_claimed`, `bad_signature`, …); subclasses set it."""
