"""The Web App's files on the disk: what there is to put in place, what is there, and putting it there so that a cut is seen.

The list is written first, then the files that differ, each whole or not at all. So a Web App that is half in place is damaged
by its own list, and whoever puts it in place again goes on where the power went. Blocking; everything may raise WebAppError.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zentrid.adapters.filestore import FileStore, NewFile
from zentrid.adapters.items import ItemFolder
from zentrid.bundle.tree import HashTree, TreeError
from zentrid.core.files import DEFAULT_VERSION, FileError, FileInfo, FileMeta, check_name, check_version
from zentrid.core.grammar import CommandError
from zentrid.core.items import ItemSet
from zentrid.core.names import SlotName
from zentrid.core.version import version_or_zero
from zentrid.core.webapp import (
    FIRST_PAGE,
    FOLDER,
    LIST_NAME,
    MAX_LIST_BYTES,
    AppList,
    Listed,
    WebAppListError,
    check_limits,
    checked_name,
    parse_list,
)
from zentrid.core.webappplace import MAX_RECORD_BYTES, Placed, begun, ended, gone, hashes_of, parse_placed
from zentrid.errors import ZentriError
from zentrid.update.durable import Hook, no_hook, write_durable

log = logging.getLogger(__name__)

IMAGE: Final = Path("/usr/share/zentri/webapp")
"""The copy of the Web App in the read-only image."""
RECORD: Final = "webapp-placed.json"
_PIECE_BYTES: Final = 64 * 1024
_ROOT: Final = re.compile(r"([0-9a-f]{64})\.", re.ASCII)

Tell = Callable[[int, str], None]
"""Hears the percent and what is under way."""


class WebAppError(ZentriError):
    """The Web App cannot be put in place; the sentence says why and what to do."""

    reason = "webapp"


class InterruptedByPersonError(WebAppError):
    """Somebody has stopped it."""

    reason = "interrupted"

    def __init__(self) -> None:
        super().__init__("Stopped; what is restored already stays. 'webapp_recover' goes on.")


@dataclass(frozen=True)
class Copy:
    """A whole Web App, and where each of its files can be read."""

    wanted: AppList
    origins: Mapping[str, Path]


def image_copy(folder: Path = IMAGE) -> Copy:
    """Return the image's Web App."""
    try:
        with (folder / LIST_NAME).open("rb") as stream:
            wanted = parse_list(stream.read(MAX_LIST_BYTES + 1))
    except FileNotFoundError:
        raise WebAppError("This image has no copy of the Web App; update the device.") from None
    except (OSError, WebAppListError) as error:
        raise WebAppError(
            f"The copy of the Web App in the image cannot be used ({error}); update the device."
        ) from error
    return Copy(wanted, {name: folder / name for name in wanted.files})


def part_of_app(path: str) -> str:
    """Return the name in the Web App of a bundle's file; empty: it is none of the Web App's, or can be none."""
    folder, _, name = path.partition("/")
    if folder != FOLDER or name == LIST_NAME or checked_name(name) is None:
        return ""
    try:
        check_name(path)
    except CommandError:
        return ""
    return name


def with_parts(image: Callable[[], Copy], version: str, parts: Mapping[str, Path]) -> Copy:
    """Return the Web App that a release's files make: with a first page their own, else the image's with these over it.

    `image` is called only if it is needed. The files are read for their hashes.
    """
    origins = dict(parts)
    files: dict[str, Listed] = {}
    if FIRST_PAGE not in parts:
        base = image()
        origins, files = {**base.origins, **parts}, dict(base.wanted.files)
    try:
        for name, path in parts.items():
            files[name] = Listed(path.stat().st_size, _sha256(path))
        check_limits(files)
    except (OSError, WebAppListError) as error:
        raise WebAppError(f"The Web App of release {version} cannot be used ({error}).") from error
    return Copy(AppList(version, files), origins)


def held_parts(held: ItemSet | None) -> dict[str, tuple[str, str]]:
    """Return the Web App's files that bundles brought to a slot: by name, the release and the file in the store."""
    return {
        name: (item.release, item.store)
        for item in (held.items if held else ())
        if item.type == "file" and (name := part_of_app(item.path))
    }


def newest(versions: set[str]) -> str:
    """Return the newest version."""
    return max(versions, key=version_or_zero)


def held_copy(items: ItemFolder, slot: SlotName, image: Callable[[], Copy]) -> Copy:
    """Return what is in use: the image's Web App, and what bundles brought to the slot, checked under the tree of its name."""
    parts = held_parts(items.held(slot))
    if not parts:
        return image()
    paths = {name: items.top / "store" / store for name, (_, store) in parts.items()}
    for name, path in paths.items():
        root = _ROOT.match(path.name)
        if root is None or root_of(path) != root[1]:
            raise WebAppError(
                f"The device's copy of {name}, which a release brought, is damaged; install that release again."
            )
    return with_parts(image, newest({release for release, _ in parts.values()}), paths)


def root_of(path: Path) -> str:
    """Return the root of a file's hash tree, hexadecimal; empty: it cannot be read."""
    try:
        with path.open("rb") as stream:
            return HashTree.from_reader(stream).root.hex()
    except (OSError, TreeError):
        return ""


class WebAppFiles:
    """The Web App among the device's files, and the record of what was put there."""

    def __init__(self, store: FileStore, record: Path, hook: Hook = no_hook) -> None:
        self.store = store
        self._record = record
        self._hook = hook

    def last(self) -> Placed | None:
        """Return the record; None: there is none that can be read."""
        try:
            with self._record.open("rb") as stream:
                return parse_placed(stream.read(MAX_RECORD_BYTES + 1))
        except OSError:
            return None

    def path(self, name: str) -> Path:
        """Return where a file of the Web App is."""
        return self.store.top / FOLDER / name

    def present(self) -> dict[str, str]:
        """Return the SHA-256 of each file that is there; empty for one that cannot be read."""
        prefix = f"{FOLDER}/"
        names = [info.name.removeprefix(prefix) for info in self._listed() if info.name.startswith(prefix)]
        return {name: _sha256_or_nothing(self.path(name)) for name in names}

    def _listed(self) -> list[FileInfo]:
        try:
            return self.store.list()
        except FileError as error:
            raise WebAppError(str(error)) from error

    def note(self, wanted: AppList) -> None:
        """Record that this is in place."""
        self._write(ended(begun(wanted, wanted.id, None)))

    def put(self, copy: Copy, offered: str, tell: Tell, stop: Callable[[], bool]) -> int:
        """Put a Web App in place; return how many files had to be written. `stop` is asked between two pieces.

        `offered`: the id of what is in use, which is then not put in place by itself again. What could not be gone through
        with, for want of room for instance, changes nothing: what is there may work.
        """
        present, new = self.present(), hashes_of(copy.wanted)
        replaced = {name: digest for name, digest in present.items() if digest and digest != new.get(name, digest)}
        record = begun(copy.wanted, offered, self.last(), replaced)
        wrong = [name for name in sorted(copy.wanted.files) if present.get(name) != new[name]]
        vanish, listed = gone(record, present), copy.wanted.to_bytes()
        self._check(vanish, {LIST_NAME: len(listed), **{name: copy.wanted.files[name].size_bytes for name in wrong}})
        self._write(record)
        if present.get(LIST_NAME) != new[LIST_NAME]:
            self._put(LIST_NAME, listed, copy.wanted.version)
        for name in vanish:
            self._remove(name)
        total = sum(copy.wanted.files[name].size_bytes for name in wrong) or 1
        done = 0
        for name in wrong:
            tell(100 * done // total, name)
            done += self._put_from(name, copy, stop)
        self._write(ended(record))
        tell(100, "")
        return len(wrong)

    def _check(self, vanish: list[str], sizes_bytes: Mapping[str, int]) -> None:
        try:
            self.store.check_change(
                [f"{FOLDER}/{name}" for name in vanish],
                {f"{FOLDER}/{name}": size_bytes for name, size_bytes in sizes_bytes.items()},
            )
        except FileError as error:
            raise WebAppError(str(error)) from error

    def _put_from(self, name: str, copy: Copy, stop: Callable[[], bool]) -> int:
        wanted = copy.wanted.files[name]
        new = self._create(name, wanted.size_bytes, copy.wanted.version)
        digest = hashlib.sha256()
        try:
            with copy.origins[name].open("rb") as stream:
                while piece := stream.read(_PIECE_BYTES):
                    if stop():
                        raise InterruptedByPersonError
                    digest.update(piece)
                    new.write(piece)
            if digest.hexdigest() != wanted.sha256:
                raise WebAppError(f"The copy of {name} is damaged, so it was not put in place; update the device.")
            new.finish()
        except (OSError, FileError) as error:
            raise WebAppError(f"{name} cannot be restored: {error}") from error
        finally:
            new.abandon()
        return wanted.size_bytes

    def _put(self, name: str, data: bytes, version: str) -> None:
        new = self._create(name, len(data), version)
        try:
            new.write(data)
            new.finish()
        except FileError as error:
            raise WebAppError(str(error)) from error
        finally:
            new.abandon()

    def _create(self, name: str, size_bytes: int, version: str) -> NewFile:
        try:
            return self.store.create(f"{FOLDER}/{name}", size_bytes, FileMeta(_version_of_file(version)))
        except FileError as error:
            raise WebAppError(str(error)) from error

    def _remove(self, name: str) -> None:
        try:
            self.store.delete(f"{FOLDER}/{name}")
        except FileError as error:
            log.info("web app: %s stays: %s", name, error)

    def _write(self, record: Placed) -> None:
        try:
            write_durable(self._record, record.to_bytes(), self._hook)
        except OSError as error:
            raise WebAppError(
                f"The data partition cannot be written ({error.strerror}); free some space on it, or check it."
            ) from error


def _version_of_file(version: str) -> str:
    try:
        return check_version(version)
    except CommandError:
        return DEFAULT_VERSION


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256_or_nothing(path: Path) -> str:
    try:
        return _sha256(path)
    except OSError:
        return ""
