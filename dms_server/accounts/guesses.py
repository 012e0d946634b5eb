"""Slowing down those who guess passwords and tokens: a growing pause, then a wait, per place they come from."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, or_, select

from dms_server.accounts.models import Guess
from dms_server.clock import now
from dms_server.db import Database
from dms_server.errors import TooManyTriesError
from dms_server.settings import Settings

DOUBLINGS_MAX = 4


@dataclass(frozen=True)
class Attempt:
    """A try that is under way."""

    ids: tuple[int, ...]
    before: int
    """Wrong tries, or tries under way, from the same place in the window before this one."""


class Guesses:
    """Counts wrong secrets in the database, so that a restart forgives nothing.

    A place is a source (an address, a device) or a source together with the account that is tried: nobody can lock
    another person out from elsewhere.
    """

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings

    async def begin(self, *places: str) -> Attempt:
        """Count a try before it is made, so that many at once are counted too; end it with `wrong` or `right`.

        Raises TooManyTriesError when one of the places has used up its tries.
        """
        since = now() - timedelta(seconds=self._settings.guess_window_s)
        rows = [Guess(place=place, at=now()) for place in places]
        async with self._db.write() as session:
            await session.change(delete(Guess).where(Guess.at <= since))
            statement = select(func.count()).where(Guess.place.in_(places)).group_by(Guess.place)
            count = max(await session.scalars(statement), default=0)
            if count < self._settings.guess_limit:
                await session.add(*rows)
        if count >= self._settings.guess_limit:
            wait_s = self._settings.guess_window_s
            raise TooManyTriesError(
                f"too many wrong passwords; wait {wait_s // 60 or 1} minutes and try again", retry_after_s=wait_s
            )
        return Attempt(tuple(row.id for row in rows), count)

    async def wrong(self, attempt: Attempt) -> None:
        """The secret was wrong: pause; the pause doubles with each one in the window."""
        await asyncio.sleep(self._settings.guess_delay_s * 2 ** min(attempt.before, DOUBLINGS_MAX))

    async def right(self, attempt: Attempt, *forget: str) -> None:
        """The secret was right: this try does not count, and nor do the earlier ones of the places in `forget`."""
        async with self._db.write() as session:
            await session.change(delete(Guess).where(or_(Guess.id.in_(attempt.ids), Guess.place.in_(forget))))
