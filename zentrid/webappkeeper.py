"""Keeps the Web App's files: put in place on the first day and after updates, restored when a person asks for it.

By itself it only ever replaces what the device has put there (`core/webappplace.py` has the rules), and what goes wrong is a line
in the log. A restore by a person replaces what belongs to the Web App, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

from zentrid.adapters.items import ItemFolder
from zentrid.adapters.webappfiles import (
    Copy,
    InterruptedByPersonError,
    Tell,
    WebAppError,
    WebAppFiles,
    held_copy,
    held_parts,
    image_copy,
    newest,
    part_of_app,
    root_of,
    with_parts,
)
from zentrid.bundle.manifest import Item, Manifest
from zentrid.commands.context import Settings
from zentrid.core.names import SAFE_SLOT, SlotName
from zentrid.core.version import version_or_zero
from zentrid.core.webapp import MAX_APP_BYTES, MAX_FILES, split_root
from zentrid.core.webappplace import What, decide
from zentrid.errors import ZentriError
from zentrid.update.attempt import Attempt
from zentrid.update.errors import (
    DmsRefusedError,
    UpdateBusyError,
    UpdateCancelledError,
    UpdateError,
    UpdateRefusedError,
)

log = logging.getLogger(__name__)

ROOT: Final = "http.server.root_filename"
MAX_RELEASES: Final = 4
"""So many releases may have brought parts of one Web App."""
_FETCHED_PERCENT: Final = 60
"""How much of the progress fetching is."""


class Release(Protocol):
    """What the server has signed; `update.webapprelease` is the real one."""

    async def manifest(self, version: str, attempt: Attempt) -> Manifest:
        """Return the signed manifest of a release. Raises UpdateError."""

    def fetched(
        self, manifest: Manifest, items: Mapping[str, Item], tell: Callable[[int], None], attempt: Attempt
    ) -> AbstractAsyncContextManager[dict[str, Path]]:
        """Give the files, verified, while the context lasts. Raises UpdateError, OSError."""

    def clear(self) -> None:
        """Remove what an interrupted run left. Blocking."""


class Updates(Protocol):
    """What is needed of the update manager."""

    @property
    def web_app(self) -> Release:
        """What the server has of the Web App."""

    @property
    def version(self) -> str:
        """The newest release that is part of what runs. Reads a small file."""

    def restoring(self) -> AbstractAsyncContextManager[Attempt]:
        """Keep updates away; raises UpdateBusyError if one runs."""


class WebAppKeeper:
    """Implements `commands.context.WebApps`. `run` is a task for as long as the supervisor lives."""

    def __init__(
        self,
        files: WebAppFiles,
        settings: Settings,
        updates: Updates,
        items: ItemFolder,
        slot: SlotName,
        image: Callable[[], Copy] = image_copy,
    ) -> None:
        self._files = files
        self._settings = settings
        self._updates = updates
        self._items = items
        self._slot = slot
        self._image = image
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._asked_for = False
        """Somebody's restore is under way."""
        self._told = ""
        self.status = "nothing is being restored"

    # --- by itself ------------------------------------------------------------------------------------------------
    def look_again(self) -> None:
        """Look whether another Web App is in use."""
        self._changed.set()

    async def run(self) -> None:
        """Put in place what is in use, now and whenever it has changed, until cancelled. Whatever fails is a line in the log."""
        await asyncio.to_thread(self._updates.web_app.clear)
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            async with self._lock:
                try:
                    await self._place()
                except (ZentriError, OSError) as error:
                    self._tell_once(f"it cannot be put in place: {error}")
                except Exception:
                    log.exception("web app: it cannot be put in place")

    async def _place(self) -> None:
        values = self._settings.values
        root_is_default = values[ROOT] == values.table[ROOT].default
        await _undisturbed(lambda stop: self._place_now(stop, root_is_default=root_is_default))

    def _place_now(self, stop: threading.Event, *, root_is_default: bool) -> None:
        safe_mode = self._slot == SAFE_SLOT
        if safe_mode:
            return
        copy, last = self._in_use(), self._files.last()
        if last is not None and last.done and last.offered == copy.wanted.id:
            return  # as nearly always: nothing has to be read for that
        decision = decide(
            copy.wanted, last, self._files.present(), safe_mode=safe_mode, root_is_default=root_is_default
        )
        if decision.what is What.PLACE:
            count = self._files.put(copy, copy.wanted.id, lambda _percent, _text: None, stop.is_set)
            log.info("web app: version %s is in place, %d files written (%s)", copy.wanted.version, count, decision.why)
        elif decision.what is What.NOTE:
            self._files.note(copy.wanted)
        elif decision.what is What.LEAVE:
            self._tell_once(f"version {copy.wanted.version} is not put in place: {decision.why}")

    def _tell_once(self, sentence: str) -> None:
        """Log what is found at every look; the log is small."""
        if sentence != self._told:
            log.warning("web app: %s", sentence)
        self._told = sentence

    def _in_use(self) -> Copy:
        """Return the Web App that goes with what runs."""
        return held_copy(self._items, self._slot, self._image)

    # --- asked for ------------------------------------------------------------------------------------------------
    async def recover(self, source: str, tell: Tell, stop: asyncio.Event) -> str:
        """Restore; see `commands.context.WebApps`."""
        if self._asked_for:
            raise WebAppError("The Web App is being restored already; 'webapp_recover status' tells how far it is.")

        def told(percent: int, text: str) -> None:
            self.status = f"restoring: {percent} % {text}".rstrip()
            tell(percent, text)

        self._asked_for = True
        try:
            told(0, "")
            async with self._lock:  # what is put in place by itself is waited for: it takes a moment
                done = await self._recover_alone(source, told, stop)
            self.status = done
        except (ZentriError, OSError) as error:
            self.status = f"not restored: {error}"
            raise
        except BaseException:
            self.status = "not restored: it was given up"
            raise
        finally:
            self._asked_for = False
        log.info("web app: %s", done)
        return done

    async def _recover_alone(self, source: str, tell: Tell, stop: asyncio.Event) -> str:
        """Restore while no update and no other restore runs."""
        async with self._updates.restoring() as attempt:
            watch = asyncio.create_task(_cancel_on(stop, attempt))
            try:
                return await self._recover(source, tell, attempt)
            except UpdateCancelledError:
                raise InterruptedByPersonError from None
            finally:
                watch.cancel()

    async def _recover(self, source: str, tell: Tell, attempt: Attempt) -> str:
        why_not = ""
        if source != "image":
            try:
                return await self._from_dms(tell, attempt)
            except (UpdateCancelledError, UpdateBusyError, WebAppError):
                raise
            except (UpdateError, OSError) as error:
                why_not = error.message if isinstance(error, DmsRefusedError) else str(error)
                if source == "dms":
                    raise WebAppError(
                        f"Not restored, the DMS does not help: {why_not}. 'webapp_recover image' does without."
                    ) from error
        return await self._from_device(tell, attempt, why_not)

    async def _from_device(self, tell: Tell, attempt: Attempt, why_not: str) -> str:
        image = await asyncio.to_thread(self._image)
        try:
            in_use = await asyncio.to_thread(self._in_use)
        except WebAppError as error:
            log.warning("web app: %s", error)
            in_use = image
        # Who asks for the image gets just that; who does not care gets what goes with the release.
        copy = in_use if why_not else image
        await self._put(copy, in_use.wanted.id, tell, attempt)
        origin = "the copy in the image" if copy.wanted == image.wanted else "the device's own copies"
        not_dms = f"; not from the DMS: {why_not}" if why_not else ""
        return await self._ending(f"The Web App {copy.wanted.version} is restored from {origin}{not_dms}.")

    async def _from_dms(self, tell: Tell, attempt: Attempt) -> str:
        tell(0, "asking the server")
        held = held_parts(await asyncio.to_thread(self._items.held, self._slot))
        versions = {release for release, _ in held.values()} or {await asyncio.to_thread(lambda: self._updates.version)}
        if len(versions) > MAX_RELEASES:
            raise UpdateRefusedError(
                "no_web_app", f"more than {MAX_RELEASES} releases have brought parts of the Web App"
            )
        items: dict[str, Item] = {}
        for version in sorted(versions, key=version_or_zero):
            manifest = await self._updates.web_app.manifest(version, attempt)
            items |= _app_items(manifest, held)
        if not items:
            raise UpdateRefusedError("no_web_app", f"release {newest(versions)} has no Web App")
        if len(items) > MAX_FILES or sum(item.size_bytes for item in items.values()) > MAX_APP_BYTES:
            raise UpdateRefusedError("no_web_app", f"the Web App of release {newest(versions)} is too large")
        wrong = await asyncio.to_thread(self._wrong, items)
        async with self._updates.web_app.fetched(
            manifest, wrong, lambda percent: tell(percent * _FETCHED_PERCENT // 100, "fetching"), attempt
        ) as fetched:
            paths = {name: fetched.get(name) or self._files.path(name) for name in items}
            copy = await asyncio.to_thread(with_parts, self._image, newest(versions), paths)
            offered = await asyncio.to_thread(self._id_in_use, copy)
            rest = 100 - _FETCHED_PERCENT
            await self._put(
                copy, offered, lambda percent, name: tell(_FETCHED_PERCENT + percent * rest // 100, name), attempt
            )
        what = f"{len(wrong)} of its {len(items)} files fetched"
        return await self._ending(f"The Web App {copy.wanted.version} is restored from the DMS ({what}).")

    def _wrong(self, items: Mapping[str, Item]) -> dict[str, Item]:
        return {name: item for name, item in items.items() if not self._is_right(name, item)}

    def _is_right(self, name: str, item: Item) -> bool:
        path = self._files.path(name)
        try:
            return path.stat().st_size == item.size_bytes and root_of(path) == item.root_hash
        except OSError:
            return False

    def _id_in_use(self, copy: Copy) -> str:
        try:
            return self._in_use().wanted.id
        except WebAppError:
            return copy.wanted.id

    async def _put(self, copy: Copy, offered: str, tell: Tell, attempt: Attempt) -> None:
        loop = asyncio.get_running_loop()

        def put(stop: threading.Event) -> None:
            def heed(percent: int, name: str) -> None:
                loop.call_soon_threadsafe(tell, percent, name)

            self._files.put(copy, offered, heed, lambda: stop.is_set() or attempt.cancelled)

        await _undisturbed(put)

    async def _ending(self, sentence: str) -> str:
        """Let the first page be found; return the sentence and what else is to be said."""
        values = self._settings.values
        root = values.text(ROOT)
        default = str(values.table[ROOT].default)
        if root == default:
            return sentence
        if split_root(root) is not None and await asyncio.to_thread((self._files.store.top / root).is_file):
            return f"{sentence} The first page is still {root} ({ROOT})."
        values.set(ROOT, default)
        try:
            await self._settings.save_only(ROOT)
        except ZentriError as error:
            return f"{sentence} {ROOT} is {default} again, but only until the next start: {error}"
        return f"{sentence} {ROOT} is {default} again."


def _app_items(manifest: Manifest, held: Mapping[str, tuple[str, str]]) -> dict[str, Item]:
    """Return the Web App's files of a release, but for those that the device has from another one."""
    return {
        name: item
        for item in manifest.items
        if item.type == "file"
        and (name := part_of_app(item.path or ""))
        and (not held or held.get(name, ("", ""))[0] == str(manifest.version))
    }


async def _cancel_on(stop: asyncio.Event, attempt: Attempt) -> None:
    await stop.wait()
    attempt.cancel()


async def _undisturbed(work: Callable[[threading.Event], None]) -> None:
    """Do blocking work in a thread; if this is cancelled, ask the work to stop, wait for its end, and pass it on."""
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
