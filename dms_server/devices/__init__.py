"""Devices: identity, claim, activation, inventory, revocation."""
