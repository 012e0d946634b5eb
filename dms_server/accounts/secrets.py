"""Passwords (argon2id) and random tokens (known to the database by their SHA-256 only)."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from functools import partial

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

TOKEN_BYTES = 32
HASHING_AT_A_TIME = 2
"""Each hash takes 64 MiB; more at a time would let a stranger fill the memory with wrong passwords."""


def new_token(prefix: str) -> str:
    """Return a new random token; the prefix tells a person (and a scanner of leaked files) what it is."""
    return f"{prefix}_{secrets.token_urlsafe(TOKEN_BYTES)}"


def token_hash(token: str) -> str:
    """Return what the database knows a token by. A plain hash is enough: the token has 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


class Passwords:
    """Hashes and checks passwords outside the event loop, a few at a time."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._turn = asyncio.Semaphore(HASHING_AT_A_TIME)
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    async def hash(self, password: str) -> str:
        """Return the argon2id hash of a password."""
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def check(self, stored: str | None, password: str) -> bool:
        """Tell whether the password is right; without a stored hash takes as long as with one, and says no."""
        async with self._turn:
            good = await asyncio.to_thread(partial(self._check, stored or self._nobody, password))
        return good and stored is not None

    def _check(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
