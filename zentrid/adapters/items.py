"""Applications and files of bundles on the data partition: a store, sets of links into it, and one link for each slot.

    store/<name>          an unpacked application (a folder), or a file
    sets/<id>/            apps/<name> and files/<path>, links into the store; set.json
    slot-a, slot-b        links to the slots' sets; a switch is one rename
    previous-a, -b        where a slot goes back to while its new set is on trial
    incoming/             what is being received (<name>.payload) and unpacked; never looked into by anybody but the worker

A set and all it names is on the medium before anything points to it. Blocking; everything may raise OSError.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from zentrid.core.items import MAX_SET_BYTES, Held, ItemSet, Room, SetError, parse_set
from zentrid.core.names import SLOTS, SlotName
from zentrid.update.durable import Hook, flush_folder, no_hook, remove_tree, write_durable
from zentrid.update.spool import ROOT_DIGITS

log = logging.getLogger(__name__)

TOP: Final = Path("/data/zentri/items")
FILES_LINK: Final = Path("/run/zentri/files")
"""The stable path of the files of bundles, for applications and everybody else."""
_FOLDERS: Final = ("store", "sets")
_OPEN: Final = 0o755
_PAYLOAD: Final = ".payload"
_DISK_BLOCK_BYTES: Final = 512
"""What `st_blocks` counts in."""


class ItemFolder:
    """The folder for applications and files of bundles. `hook` is called before each durable step."""

    def __init__(self, top: Path = TOP, hook: Hook = no_hook) -> None:
        self.top = top
        self._hook = hook

    # --- what is there --------------------------------------------------------------------------------------------
    def apps(self, slot: SlotName) -> Path:
        """Return the folder with the applications of a slot's set; it may not exist."""
        return self.top / f"slot-{slot}" / "apps"

    def files(self, slot: SlotName) -> Path:
        """Return the folder with the files of a slot's set; it may not exist."""
        return self.top / f"slot-{slot}" / "files"

    def current(self, slot: SlotName) -> str:
        """Return the id of the slot's set; empty: it has none."""
        return self._target(f"slot-{slot}")

    def held(self, slot: SlotName) -> ItemSet | None:
        """Return what the slot's set holds; None: it has no set, or one that cannot be read."""
        set_id = self.current(slot)
        if not set_id:
            return None
        try:
            with (self.top / "sets" / set_id / "set.json").open("rb") as file:
                return parse_set(file.read(MAX_SET_BYTES + 1))
        except (OSError, SetError) as error:
            log.error("the applications and files of slot %s cannot be told: %s", slot, error)
            return None

    def has(self, name: str) -> bool:
        """Tell whether the store has this entry; what it has is whole."""
        return (self.top / "store" / name).exists()

    def room(self) -> Room:
        """Return what the file system has left."""
        found = os.statvfs(next(path for path in (self.top, *self.top.parents) if path.exists()))
        return Room(found.f_bavail * found.f_frsize, found.f_favail)

    # --- making a set ---------------------------------------------------------------------------------------------
    def make_incoming(self, wanted: Collection[str] = ()) -> Path:
        """Make the folder for what is received. What an interrupted update has of the `wanted` payloads stays, and no more."""
        self._hook("empty incoming")
        self._empty_incoming(lambda name: name in wanted)
        self._make_folders()
        path = self.top / "incoming"
        path.mkdir(exist_ok=True)
        path.chmod(_OPEN)
        return path

    def payload(self, name: str) -> Path:
        """Return where the payload of the store's entry `name` is received."""
        return self.top / "incoming" / f"{name}{_PAYLOAD}"

    def arrived_bytes(self, wanted: Iterable[str]) -> int:
        """Return what of these payloads has its room on the disk already."""
        total_bytes = 0
        for name in wanted:
            with suppress(FileNotFoundError):
                total_bytes += self.payload(name).lstat().st_blocks * _DISK_BLOCK_BYTES
        return total_bytes

    def _empty_incoming(self, stays: Callable[[str], bool]) -> None:
        """Remove what is received, but for payloads whose names `stays`."""
        path = self.top / "incoming"
        for entry in sorted(path.iterdir()) if path.is_dir() else ():
            name, plain = entry.name.removesuffix(_PAYLOAD), stat.S_ISREG(entry.lstat().st_mode)
            if plain and name != entry.name and stays(name):
                continue
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                entry.unlink()

    def _make_folders(self) -> None:
        for folder in (self.top, *(self.top / name for name in _FOLDERS)):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(_OPEN)  # whatever the umask is
                flush_folder(folder.parent)

    def keep(self, incoming: Path, name: str) -> None:
        """Move a checked and flushed entry into the store. One that is there already stays."""
        if self.has(name):
            return
        self._hook(f"store {name}")
        incoming.rename(self.top / "store" / name)
        flush_folder(self.top / "store")

    def make_set(self, set_id: str, held_set: ItemSet) -> None:
        """Make a set, durably: its folders and links first, then its description, then its name."""
        folder, beside = self.top / "sets" / set_id, self.top / "sets" / f".{set_id}.new"
        self._hook("make set")
        self._make_folders()
        for old in (folder, beside):
            if old.exists():
                shutil.rmtree(old)
        for name in ("apps", "files"):
            (beside / name).mkdir(parents=True)
        for held in held_set.items:
            self._link(beside, held)
        write_durable(beside / "set.json", held_set.to_bytes(), self._hook)
        for path in (*_folders_below(beside), beside):
            path.chmod(_OPEN)
            flush_folder(path)
        (beside / "set.json").chmod(0o644)
        self._hook("name set")
        beside.rename(folder)
        flush_folder(folder.parent)
        flush_folder(self.top)

    def _link(self, folder: Path, held: Held) -> None:
        path = folder / ("apps" if held.type == "app" else "files") / (held.path or held.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.has(held.store):
            raise FileNotFoundError(2, "the store lacks it", held.store)
        ups = len(path.relative_to(folder).parts) + 1
        path.symlink_to(Path(*[".."] * ups, "store", held.store))

    # --- switching ------------------------------------------------------------------------------------------------
    def switch(self, slot: SlotName, set_id: str) -> None:
        """Make a set the slot's: one rename."""
        self._point(f"slot-{slot}", set_id)

    def keep_previous(self, slot: SlotName) -> None:
        """Remember the slot's set as the one to go back to. Call it before `switch`; the slot must have a set."""
        self._point(f"previous-{slot}", self.current(slot))

    def go_back(self, slot: SlotName) -> bool:
        """Make the set before the last switch the slot's again; False: none is remembered. May be repeated."""
        previous = self._target(f"previous-{slot}")
        if not previous:
            return False
        if previous != self.current(slot):
            self._point(f"slot-{slot}", previous)
        return True

    def forget(self, name: str) -> None:
        """Remove a link, `previous-<slot>` or `slot-<slot>`, for good."""
        path = self.top / name
        if path.is_symlink():
            self._hook(f"remove {name}")
            path.unlink(missing_ok=True)
            flush_folder(self.top)

    def _point(self, name: str, set_id: str) -> None:
        beside = self.top / f".{name}.new"
        beside.unlink(missing_ok=True)
        self._hook(f"link {name}")
        beside.symlink_to(Path("sets", set_id))
        self._hook(f"rename {name}")
        beside.replace(self.top / name)
        self._hook(f"flush {name}")
        flush_folder(self.top)

    def _target(self, name: str) -> str:
        try:
            target = (self.top / name).readlink()
        except OSError:
            return ""
        return target.name if (self.top / "sets" / target.name).is_dir() else ""

    # --- tidying --------------------------------------------------------------------------------------------------
    def collect(self, *, keep_previous: bool, unfinished: Collection[str] = ()) -> None:
        """Remove what no slot's link leads to, and what was left half done.

        `unfinished`: first 32 digits of root hashes whose payloads an interrupted update goes on with.
        """
        if not self.top.is_dir():
            return
        if not keep_previous:
            for slot in SLOTS:
                self.forget(f"previous-{slot}")
        self._hook("collect")
        sets = {target for name in self._links() if (target := self._target(name))}
        used = {path.readlink().name for set_id in sets for path in _links_below(self.top / "sets" / set_id)}
        self._remove_others("sets", sets)
        self._remove_others("store", used)
        for path in self.top.glob(".*.new"):
            path.unlink()
        self._empty_incoming(lambda name: name[:ROOT_DIGITS] in unfinished)
        with suppress(OSError):
            (self.top / "incoming").rmdir()  # unless something stays

    def _links(self) -> list[str]:
        return [path.name for path in self.top.iterdir() if path.is_symlink() and not path.name.startswith(".")]

    def _remove_others(self, name: str, kept: set[str]) -> None:
        folder = self.top / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name in kept:
                continue
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink()


def _folders_below(top: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(top, topdown=False):
        # A link to a folder counts as a folder here; it is none.
        yield from (Path(folder, name) for name in names if not Path(folder, name).is_symlink())


def _links_below(top: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(top):
        yield from (path for name in (*names, *files) if (path := Path(folder, name)).is_symlink())


def find_file(path: str, link: Path = FILES_LINK) -> Path | None:
    """Return the file of a bundle that belongs at `path` (relative, as in the manifest); None: there is none."""
    found = link / path
    return found if not Path(path).is_absolute() and ".." not in Path(path).parts and found.is_file() else None


def publish_files(folder: Path, link: Path = FILES_LINK) -> None:
    """Let the stable path lead to the running slot's files, whatever set it has then. A path that cannot be made is logged."""
    beside = link.with_name(f".{link.name}.new")
    try:
        with suppress(FileNotFoundError):
            beside.unlink()
        beside.symlink_to(folder)
        beside.replace(link)
    except OSError as error:
        log.error("%s cannot be made: %s", link, error)
