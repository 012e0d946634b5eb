"""Carries events from where they happen to everybody who follows, within this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Final

from zentrid.core.events import Backlog, DeviceEvent
from zentrid.errors import ZentriError

MAX_FOLLOWERS: Final = 32
log = logging.getLogger(__name__)


class TooManyFollowersError(ZentriError):
    """So many follow the events already."""

    reason = "too_many_followers"

    def __init__(self) -> None:
        super().__init__(f"{MAX_FOLLOWERS} follow the events already; end one of them first")


class FollowerTooSlowError(ZentriError):
    """A follower did not take changes of state for so long that no more were kept for it."""

    reason = "too_slow"

    def __init__(self) -> None:
        super().__init__("events came faster than they were read, and some are missing from here on; follow them anew")


class Follower:
    """One who follows; get it from `EventBus.follow` and close it."""

    def __init__(self, close: Callable[[Follower], None]) -> None:
        self._backlog = Backlog()
        self._news = asyncio.Event()
        self._close = close

    def put(self, event: DeviceEvent) -> None:
        """Queue an event; never waits."""
        self._backlog.put(event)
        self._news.set()

    async def events(self) -> AsyncGenerator[DeviceEvent, None]:
        """Yield events as they come, without end. Raises FollowerTooSlowError."""
        while True:
            self._news.clear()
            while (event := self._backlog.take()) is not None:
                yield event
            if self._backlog.overrun:
                raise FollowerTooSlowError
            await self._news.wait()

    def close(self) -> None:
        """Follow no longer."""
        self._close(self)


class EventBus:
    """The bus. `tell` may be called from any thread once `attach` was called in the event loop, and never raises."""

    def __init__(self) -> None:
        self._followers: list[Follower] = []
        self._listeners: list[Callable[[DeviceEvent], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self) -> None:
        """Deliver in the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def listen(self, listener: Callable[[DeviceEvent], None]) -> None:
        """Call `listener` with each event, in the event loop; it must not wait."""
        self._listeners.append(listener)

    def follow(self) -> Follower:
        """Return a new follower, who sees what happens from now on. Raises TooManyFollowersError."""
        if len(self._followers) >= MAX_FOLLOWERS:
            raise TooManyFollowersError
        follower = Follower(self._leave)
        self._followers.append(follower)
        return follower

    def _leave(self, follower: Follower) -> None:
        if follower in self._followers:
            self._followers.remove(follower)

    def tell(self, event: DeviceEvent) -> None:
        """Give the event to everybody."""
        try:
            if self._loop is None or self._loop is _running_loop():
                self._deliver(event)
            else:
                self._loop.call_soon_threadsafe(self._deliver, event)
        except Exception:
            log.exception("the event %r could not be delivered", event)

    def _deliver(self, event: DeviceEvent) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed with the event %r", event)
        for follower in tuple(self._followers):
            follower.put(event)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
