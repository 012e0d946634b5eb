"""What can be done with accounts, sessions and API tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, func, or_, select, update

from dms_server.accounts.guesses import Guesses
from dms_server.accounts.models import ApiToken, User, WebSession
from dms_server.accounts.secrets import Passwords, new_token, token_hash
from dms_server.clock import now
from dms_server.db import Database
from dms_server.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError, UnauthenticatedError
from dms_server.settings import Settings

log = structlog.get_logger()

SCOPES = ("read", "devices", "products", "publish")
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{1,31}")
EMAIL_PATTERN = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
PASSWORD_MIN_CHARS = 10
PASSWORD_MAX_CHARS = 256
TOKENS_MAX = 50
SESSIONS_MAX = 20
TOKEN_USED_EVERY_S = 60


@dataclass(frozen=True)
class Principal:
    """Who makes a request, and what it may do."""

    user_id: int
    name: str
    scopes: frozenset[str]
    confirmed: bool
    session_hash: str | None = None
    """Set when signed in by a browser session; None with an API token."""


@dataclass(frozen=True)
class NewSession:
    """A session just made: the token is shown to the browser once and never stored."""

    token: str
    expires_at: datetime


class Accounts:
    """People and what they sign in with."""

    def __init__(self, db: Database, settings: Settings, passwords: Passwords, guesses: Guesses) -> None:
        self._db = db
        self._settings = settings
        self._passwords = passwords
        self._guesses = guesses

    async def sign_up(self, name: str, email: str, password: str, *, confirmed: bool = False) -> int:
        """Make an account and return its id; unless `confirmed`, the link that confirms the address goes to the log.

        `confirmed` is for the operator, who may make accounts where sign-up is closed. Raises ForbiddenError when it is,
        BadRequestError for a bad name, address or password, ConflictError when the name or address is taken.
        """
        if not (confirmed or self._settings.signup_open):
            raise ForbiddenError("sign-up is closed on this server; ask its operator for an account")
        name, email = name.strip().lower(), email.strip().lower()
        _check_sign_up(name, email, password)
        hashed = await self._passwords.hash(password)
        link = None if confirmed or not self._settings.confirm_email else new_token("zc")
        user = User(
            name=name,
            email=email,
            password_hash=hashed,
            created_at=now(),
            confirmed_at=None if link else now(),
            confirm_hash=token_hash(link) if link else None,
        )
        async with self._db.write() as session:
            if await session.scalar(select(User.id).where(or_(User.name == name, User.email == email))):
                raise ConflictError("that name or e-mail address has an account already; sign in, or choose another")
            await session.add(user)
        if link:
            log.info("confirm_email", user=name, email=email, path=f"/confirm?token={link}")
        return user.id

    async def confirm(self, link: str) -> str:
        """Confirm the e-mail address that the link was for; return the account's name."""
        async with self._db.write() as session:
            user = await session.scalar(select(User).where(User.confirm_hash == token_hash(link)))
            if user is None:
                raise NotFoundError("this link is not valid or was used before; sign in to see if all is well")
            await session.change(update(User).where(User.id == user.id).values(confirmed_at=now(), confirm_hash=None))
        return user.name

    async def check_password(self, name: str, password: str, source: str) -> User:
        """Return the account if the password is right; slows guessing from `source`.

        Raises ForbiddenError (the same for an unknown name and a wrong password) or TooManyTriesError.
        """
        name = name.strip().lower()[:64]
        places = (source[:80], f"{source[:44]}>{name[:32]}")
        attempt = await self._guesses.begin(*places)
        async with self._db.read() as session:
            user = await session.scalar(select(User).where(User.name == name, User.disabled_at.is_(None)))
        good = await self._passwords.check(user.password_hash if user else None, password[:PASSWORD_MAX_CHARS])
        if not good or user is None:
            log.warning("wrong_password", user=name, source=source)
            await self._guesses.wrong(attempt)
            raise ForbiddenError("wrong user name or password")
        await self._guesses.right(attempt, places[1])
        return user

    async def sign_in(self, name: str, password: str, ip: str) -> NewSession:
        """Check the password and make a session; the oldest sessions over the limit end."""
        user = await self.check_password(name, password, f"ip:{ip}")
        token = new_token("zs")
        expires = now() + timedelta(seconds=self._settings.session_lifetime_s)
        row = WebSession(token_hash=token_hash(token), user_id=user.id, created_at=now(), expires_at=expires, ip=ip)
        async with self._db.write() as session:
            await session.change(delete(WebSession).where(WebSession.expires_at <= now()))
            await session.add(row)
            kept = (
                select(WebSession.id)
                .where(WebSession.user_id == user.id)
                .order_by(WebSession.id.desc())
                .limit(SESSIONS_MAX)
            )
            await session.change(
                delete(WebSession).where(WebSession.user_id == user.id, WebSession.id.not_in(kept.scalar_subquery()))
            )
        return NewSession(token, expires)

    async def sign_out(self, session_hash: str) -> None:
        """End one session."""
        async with self._db.write() as session:
            await session.change(delete(WebSession).where(WebSession.token_hash == session_hash))

    async def by_session(self, token: str) -> Principal | None:
        """Return who a session token belongs to, or None."""
        hashed = token_hash(token)
        statement = (
            select(User)
            .join(WebSession, WebSession.user_id == User.id)
            .where(WebSession.token_hash == hashed, WebSession.expires_at > now(), User.disabled_at.is_(None))
        )
        async with self._db.read() as session:
            user = await session.scalar(statement)
        if user is None:
            return None
        return Principal(user.id, user.name, frozenset(SCOPES), user.confirmed_at is not None, hashed)

    async def by_token(self, token: str) -> Principal:
        """Return who an API token belongs to; raises UnauthenticatedError."""
        statement = (
            select(ApiToken, User)
            .join(User, User.id == ApiToken.user_id)
            .where(ApiToken.token_hash == token_hash(token), ApiToken.revoked_at.is_(None), User.disabled_at.is_(None))
        )
        async with self._db.read() as session:
            row = await session.row(statement)
        if row is None or (row[0].expires_at is not None and row[0].expires_at <= now()):
            raise UnauthenticatedError("unknown, expired or revoked API token; make a new one on the page Tokens")
        known: ApiToken = row[0]
        if known.last_used_at is None or now() - known.last_used_at > timedelta(seconds=TOKEN_USED_EVERY_S):
            async with self._db.write() as session:
                await session.change(update(ApiToken).where(ApiToken.id == known.id).values(last_used_at=now()))
        return Principal(row[1].id, row[1].name, frozenset(known.scopes.split()), row[1].confirmed_at is not None)

    async def new_api_token(
        self, user_id: int, name: str, scopes: Sequence[str], lifetime_days: int | None = None
    ) -> tuple[int, str]:
        """Make an API token; return its id and the token, which is shown this once."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise BadRequestError(f"choose one or more scopes, only from: {', '.join(SCOPES)}")
        token = new_token("zt")
        row = ApiToken(
            user_id=user_id,
            name=name.strip()[:64] or "token",
            token_hash=token_hash(token),
            scopes=" ".join(scope for scope in SCOPES if scope in scopes),
            created_at=now(),
            expires_at=now() + timedelta(days=lifetime_days) if lifetime_days else None,
        )
        async with self._db.write() as session:
            live = select(func.count()).where(ApiToken.user_id == user_id, ApiToken.revoked_at.is_(None))
            if (await session.scalar(live) or 0) >= TOKENS_MAX:
                raise ConflictError(f"an account has at most {TOKENS_MAX} API tokens; revoke one first")
            await session.add(row)
        return row.id, token

    async def api_tokens(self, user_id: int) -> list[ApiToken]:
        """Return the account's tokens that are not revoked, newest first."""
        statement = select(ApiToken).where(ApiToken.user_id == user_id, ApiToken.revoked_at.is_(None))
        async with self._db.read() as session:
            return await session.scalars(statement.order_by(ApiToken.id.desc()).limit(TOKENS_MAX))

    async def revoke_api_token(self, user_id: int, token_id: int) -> None:
        """Make a token useless; raises NotFoundError when the account has none with that id."""
        statement = update(ApiToken).where(
            ApiToken.id == token_id, ApiToken.user_id == user_id, ApiToken.revoked_at.is_(None)
        )
        async with self._db.write() as session:
            if not await session.change(statement.values(revoked_at=now())):
                raise NotFoundError("there is no such token")


def _check_sign_up(name: str, email: str, password: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise BadRequestError("a user name has 2 to 32 letters, digits, dots, dashes or underscores")
    if not EMAIL_PATTERN.fullmatch(email):
        raise BadRequestError("that is not an e-mail address")
    if not PASSWORD_MIN_CHARS <= len(password) <= PASSWORD_MAX_CHARS:
        raise BadRequestError(f"a password has {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters")
