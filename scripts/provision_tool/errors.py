"""What can go wrong, in one sentence for the person at the keyboard."""

from __future__ import annotations


class ProvisionError(Exception):
    """Provisioning cannot go on; the sentence says what to do. Nothing half-made is left."""
