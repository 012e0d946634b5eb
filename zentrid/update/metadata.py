"""Which manifests this device may trust: The Update Framework's client over the worker's own connection, and over bundles.

The trusted root comes from the identity partition on every run and is walked forward through the root files kept on the
data partition, each verified again: whatever somebody writes into the data partition, trust starts in manufacture.

Imports `tuf`, which is large and slow to import: import this module only in a worker that needs it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from securesystemslib.exceptions import StorageError
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile, Targets  # type: ignore[attr-defined]
from tuf.api.serialization import DeserializationError

from zentrid.bundle.manifest import MAX_MANIFEST_BYTES
from zentrid.update.durable import write_durable
from zentrid.update.errors import DmsRefusedError, UntrustedError, printable
from zentrid.update.ngclient import FetcherInterface, Updater, UpdaterConfig
from zentrid.update.transport import Transport

METADATA_PATH: Final = "/device/v1/metadata/"
TARGETS_PATH: Final = "/device/v1/targets/"
MAX_METADATA_BYTES: Final = 512 * 1024
MAX_ROOT_ROTATIONS: Final = 256
_TIME_FILE: Final = "time.json"
_NO_MORE_ROOTS: Final = (403, 404)


class TransportFetcher(FetcherInterface):
    """The TUF client's fetcher: keeps each answer in memory, bounded, and remembers the root files that went by."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.roots: list[bytes] = []
        self.last = "metadata"
        """The name of the file that was fetched last, for messages."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError("everything comes through download_bytes, which knows the limit")

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return the file at `url` (a path of the server); raises DownloadHTTPError for the statuses that TUF knows."""
        self.last = url.rpartition("/")[2]
        try:
            data = self._transport.get_bytes(url, min(max_length, MAX_METADATA_BYTES))
        except DmsRefusedError as error:
            if error.status in _NO_MORE_ROOTS and url.endswith(".root.json"):
                raise exceptions.DownloadHTTPError(error.message, error.status) from error
            raise
        if url.endswith(".root.json"):
            self.roots.append(data)
        return data


class TrustStore:
    """The metadata directory on the data partition, and the time that it remembers."""

    def __init__(self, directory: Path, identity_root: bytes, built: datetime) -> None:
        """Take the root of manufacture and the image's build time, before which no clock is believed."""
        self._directory = directory
        self._identity_root = identity_root
        self._built = built

    @property
    def directory(self) -> Path:
        """Where the TUF client keeps its files."""
        return self._directory

    def root(self) -> Metadata[Root]:
        """Return the newest root that is reached from the identity's root. Raises UntrustedError if that one is bad."""
        with _named("the root of trust in the identity partition"):
            current = Metadata[Root].from_bytes(self._identity_root)
            _verify(current.signed, Root.type, current)
        return self._walk(current, self._kept_roots(current.signed.version))

    def keep_roots(self, candidates: Iterable[bytes]) -> Metadata[Root]:
        """Make each following root durable that the ones before it sign; return the newest."""
        current = self.root()
        for data in candidates:
            following = self._walk(current, [data])
            if following is not current:
                current = following
                write_durable(self._root_path(current.signed.version), data)
        return current

    def prepare(self) -> None:
        """Give the TUF client the root to start from. Its own files it checks itself."""
        root = self.root()
        self._directory.mkdir(parents=True, exist_ok=True)
        write_durable(self._directory / "root.json", root.to_bytes())

    def now(self) -> datetime:
        """Return the time: never before the image was built or the last metadata was accepted, whatever the clock says."""
        return max(datetime.now(UTC), self._built, self._remembered())

    def accept(self, moment: datetime) -> None:
        """Remember that metadata was valid at `moment`, and make everything that the client wrote durable."""
        text = json.dumps({"accepted": moment.isoformat()})
        write_durable(self._directory / _TIME_FILE, text.encode())
        for path in self._directory.glob("*.json"):
            _sync(path)
        _sync(self._directory)

    def _remembered(self) -> datetime:
        try:
            text = json.loads((self._directory / _TIME_FILE).read_bytes()[:200])["accepted"]
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (OSError, ValueError, KeyError, TypeError):
            return self._built

    def _root_path(self, version: int) -> Path:
        return self._directory / "roots" / f"{version}.root.json"

    def _kept_roots(self, after: int) -> Iterator[bytes]:
        for version in range(after + 1, after + 1 + MAX_ROOT_ROTATIONS):
            try:
                yield self._root_path(version).read_bytes()
            except OSError:
                return

    @staticmethod
    def _walk(current: Metadata[Root], candidates: Iterable[bytes]) -> Metadata[Root]:
        for data in candidates:
            try:
                following = Metadata[Root].from_bytes(data[:MAX_METADATA_BYTES])
                if following.signed.version != current.signed.version + 1:
                    continue
                _verify(current.signed, Root.type, following)
                _verify(following.signed, Root.type, following)
            except (exceptions.RepositoryError, DeserializationError, ValueError, TypeError):
                break
            current = following
        return current


def online_manifest(store: TrustStore, transport: Transport, target_path: str) -> bytes:
    """Return the manifest at `target_path` after the whole TUF client workflow, its length and hash checked.

    Raises UntrustedError (which role, and what is wrong with it), or the transport's errors.
    """
    store.prepare()
    fetcher = TransportFetcher(transport)
    config = UpdaterConfig(
        max_root_rotations=MAX_ROOT_ROTATIONS,
        root_max_length=MAX_METADATA_BYTES,
        timestamp_max_length=16 * 1024,
        snapshot_max_length=MAX_METADATA_BYTES,
        targets_max_length=MAX_METADATA_BYTES,
    )
    with _named(lambda: f"the update server's {fetcher.last}"):
        updater = Updater(str(store.directory), METADATA_PATH, fetcher=fetcher, config=config)
        moment = store.now()
        # The client takes the system clock; ours is the one that cannot go back.
        updater._trusted_set.reference_time = moment
        try:
            updater.refresh()
        finally:
            store.keep_roots(fetcher.roots)
        info = updater.get_targetinfo(target_path)
    if info is None:
        raise UntrustedError(
            f"no trusted key signs {target_path}; ask its publisher to sign and publish it", "not_signed"
        )
    store.accept(moment)
    digest = next(iter(info.hashes.values()))
    folder, _, name = target_path.rpartition("/")
    data = transport.get_bytes(f"{TARGETS_PATH}{folder}/{digest}.{name}", MAX_MANIFEST_BYTES)
    _check_manifest(info, data)
    return data


def offline_manifest(store: TrustStore, metadata: Mapping[str, bytes], product: str, path: str, data: bytes) -> None:
    """Check the manifest of a bundle file against the chain in it: everything that is checked online, freshness aside.

    Where the device knows newer top-level targets from the server, those decide which key may sign for the product: a key
    that was withdrawn does not come back by a file. Raises UntrustedError.
    """
    names = sorted((name for name in metadata if name.endswith(".root.json")), key=lambda name: int(name.split(".")[0]))
    root = store.keep_roots(metadata[name] for name in names)
    with _named("the bundle's targets.json"):
        targets = Metadata[Targets].from_bytes(metadata.get("targets.json", b""))
        _verify(root.signed, Targets.type, targets)
    targets = _newer_known(store, root, targets)
    with _named(f"the bundle's {product}.json"):
        if targets.signed.delegations is None or not any(
            name == product for name, _ in targets.signed.delegations.get_roles_for_target(path)
        ):
            raise UntrustedError(f"the fleet's owner has not allowed anybody to sign for {product}", "not_signed")
        role = Metadata[Targets].from_bytes(metadata.get(f"{product}.json", b""))
        _verify(targets.signed, product, role)
    info = role.signed.targets.get(path)
    if info is None:
        raise UntrustedError(f"the bundle's {product}.json does not sign {path}", "not_signed")
    _check_manifest(info, data)


def _newer_known(store: TrustStore, root: Metadata[Root], offered: Metadata[Targets]) -> Metadata[Targets]:
    with suppress(OSError, exceptions.RepositoryError, DeserializationError, ValueError):
        known = Metadata[Targets].from_bytes((store.directory / "targets.json").read_bytes())
        _verify(root.signed, Targets.type, known)
        if known.signed.version > offered.signed.version:
            return known
    return offered


def _check_manifest(info: TargetFile, data: bytes) -> None:
    try:
        info.verify_length_and_hashes(data)
    except exceptions.LengthOrHashMismatchError as error:
        raise UntrustedError(
            f"the manifest of {info.path} is not the one that was signed; download it again", "bad_manifest"
        ) from error


@contextmanager
def _named(name: str | Callable[[], str]) -> Iterator[None]:
    """Turn the TUF library's errors into one that names the file and what a person can do."""
    try:
        yield
    except (
        exceptions.RepositoryError,
        exceptions.DownloadError,
        DeserializationError,
        StorageError,
        ValueError,
    ) as error:
        raise _untrusted(name if isinstance(name, str) else name(), error) from error


def _untrusted(what: str, error: Exception) -> UntrustedError:
    said = printable(str(error) or type(error).__name__, 160)
    match error:
        case exceptions.ExpiredMetadataError():
            # The library says which file; it may notice only after it has fetched the next one.
            sentence = (
                f"signed metadata has expired ({said}): the server is out of date or holds updates back; check it"
            )
            return UntrustedError(sentence, "expired")
        case exceptions.BadVersionNumberError() | exceptions.EqualVersionNumberError():
            sentence = (
                f"{what} is older than what this device has seen ({said}): it was replayed, or the server was reset"
            )
            return UntrustedError(sentence, "replayed")
        case exceptions.UnsignedMetadataError() | exceptions.LengthOrHashMismatchError():
            return UntrustedError(f"{what} is not signed as it must be ({said}); it was changed on its way")
        case _:
            return UntrustedError(f"{what} is damaged ({said}); it was changed on its way", "bad_metadata")


def _verify(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    """Check that `metadata` has the signatures that `delegator` demands of `role`; raises UnsignedMetadataError."""
    delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def parse_time(text: str) -> datetime:
    """Return an ISO 8601 time as an aware one; the epoch for what is none."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.fromtimestamp(0, UTC)
