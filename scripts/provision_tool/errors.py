"""What can go wrong, in one sentence for the person at the keyboard."""

from __future__ import annotations

from zentrid.errors import ZentriError


class ProvisionError(ZentriError):
    """Provisioning cannot go on; the sentence says what to do. Nothing half-made is left."""

    reason = "bad_provision"
