"""Which manifests this device may trust: The Update Framework's client over the worker's own connection, and over bundles.

What is kept of it on the data partition, and why nothing there can be planted or get stuck, is `truststore`'s matter.

Imports `tuf`, which is large and slow to import: import this module only in a worker that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from securesystemslib.exceptions import StorageError
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile, Targets, Timestamp  # type: ignore[attr-defined]
from tuf.api.serialization import DeserializationError

from zentrid.bundle.manifest import MAX_MANIFEST_BYTES
from zentrid.bundle.signedtime import signed_at
from zentrid.update.errors import DmsRefusedError, UntrustedError, printable
from zentrid.update.ngclient import FetcherInterface, Updater, UpdaterConfig
from zentrid.update.transport import Transport
from zentrid.update.truststore import MAX_METADATA_BYTES, MAX_ROOT_ROTATIONS, Chain, TrustStore, parse_time, verify

__all__ = [
    "MAX_METADATA_BYTES",
    "TransportFetcher",
    "TrustStore",
    "look_for_news",
    "offline_manifest",
    "online_manifest",
    "parse_time",
]

METADATA_PATH: Final = "/device/v1/metadata/"
TARGETS_PATH: Final = "/device/v1/targets/"
_NO_MORE_ROOTS: Final = (403, 404)


class TransportFetcher(FetcherInterface):
    """The TUF client's fetcher: keeps each answer in memory, bounded."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.last = "metadata"
        """The name of the file that was fetched last, for messages."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError("everything comes through download_bytes, which knows the limit")

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return the file at `url` (a path of the server); raises DownloadHTTPError for the statuses that TUF knows."""
        self.last = url.rpartition("/")[2]
        try:
            return self._transport.get_bytes(url, min(max_length, MAX_METADATA_BYTES))
        except DmsRefusedError as error:
            if error.status in _NO_MORE_ROOTS and url.endswith(".root.json"):
                raise exceptions.DownloadHTTPError(error.message, error.status) from error
            raise


class _Client(Updater):
    """The TUF library's client from the timestamp on, its files written durably. The roots were walked before it starts."""

    def __init__(self, store: TrustStore, fetcher: TransportFetcher) -> None:
        config = UpdaterConfig(
            max_root_rotations=0,
            timestamp_max_length=16 * 1024,
            snapshot_max_length=MAX_METADATA_BYTES,
            targets_max_length=MAX_METADATA_BYTES,
        )
        super().__init__(str(store.directory), METADATA_PATH, fetcher=fetcher, config=config)
        self._store = store
        # The client takes the system clock; ours is the one that cannot go back.
        self._trusted_set.reference_time = store.now()

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        # The library renames without a flush: after a power cut an empty file would have forgotten what was seen.
        self._store.keep(f"{quote(rolename, '')}.json", data)

    def seen(self, role: str) -> Any:  # noqa: ANN401 - its kind depends on the role
        """Return the metadata of a role that was verified, expired or not; None: it did not come so far."""
        return self._trusted_set.get(role)

    def require_fresh(self, moment: datetime) -> None:
        """Raise ExpiredMetadataError for whatever had expired at `moment` already."""
        for signed in self._trusted_set:
            if signed.is_expired(moment):
                raise exceptions.ExpiredMetadataError(f"{signed.type}.json is expired")


def online_manifest(store: TrustStore, transport: Transport, target_path: str) -> bytes:
    """Return the manifest at `target_path` after the whole TUF client workflow, its length and hash checked.

    Raises UntrustedError (which role, and what is wrong with it), or the transport's errors.
    """
    fetcher = TransportFetcher(transport)
    store.tidy()
    chain = store.chain()
    with _named(lambda: f"the update server's {fetcher.last}"):
        chain = _follow_roots(store, fetcher, chain)
        store.prepare(chain)
        try:
            info = _trusted_info(store, fetcher, chain.root.signed, target_path)
        except _TimeTakenBackError:
            # A timestamp was signed by a server whose clock was ahead, and a newer one says so.
            info = _trusted_info(store, fetcher, chain.root.signed, target_path)
    digest = next(iter(info.hashes.values()))
    folder, _, name = target_path.rpartition("/")
    data = transport.get_bytes(f"{TARGETS_PATH}{folder}/{digest}.{name}", MAX_MANIFEST_BYTES)
    _check_manifest(info, data)
    return data


def look_for_news(store: TrustStore, transport: Transport) -> None:
    """Take over the server's newest roots, and see that its signed metadata is fresh. Raises as `online_manifest`."""
    fetcher = TransportFetcher(transport)
    store.tidy()
    chain = store.chain()
    with _named(lambda: f"the update server's {fetcher.last}"):
        chain = _follow_roots(store, fetcher, chain)
        store.prepare(chain)
        try:
            _refreshed(store, fetcher, chain.root.signed)
        except _TimeTakenBackError:
            _refreshed(store, fetcher, chain.root.signed)


def _follow_roots(store: TrustStore, fetcher: TransportFetcher, chain: Chain) -> Chain:
    """Return the chain with every newer root that the server has; each is durable before the next is asked for."""
    for _ in range(MAX_ROOT_ROTATIONS):
        try:
            data = fetcher.download_bytes(
                f"{METADATA_PATH}{chain.root.signed.version + 1}.root.json", MAX_METADATA_BYTES
            )
        except exceptions.DownloadHTTPError:
            break
        chain = store.add_root(chain, data)
    return chain


class _Result(NamedTuple):
    """What the workflow came to."""

    info: TargetFile | None
    fetched: Metadata[Targets]
    """The server's top-level targets."""
    newest: Metadata[Targets]
    """The newest that this device knows."""


class _TimeTakenBackError(exceptions.ExpiredMetadataError):
    """The time that was remembered turned out to be wrong: looking once more may find that nothing has expired."""


def _refreshed(store: TrustStore, fetcher: TransportFetcher, root: Root, target_path: str = "") -> _Result:
    """Carry out the workflow, as far as the target's metadata if there is one. Raises RepositoryError."""
    kept_version = store.kept_timestamp_version(root)
    client = _Client(store, fetcher)
    try:
        client.refresh()
        info = client.get_targetinfo(target_path) if target_path else None
    except exceptions.ExpiredMetadataError as error:
        timestamp = client.seen(Timestamp.type)
        if timestamp is not None and store.remember_time(root, timestamp, kept_version):
            raise _TimeTakenBackError(str(error)) from error
        raise
    timestamp = client.seen(Timestamp.type)
    # A device whose clock stands in the past sees by the newest signature what has expired.
    client.require_fresh(signed_at(timestamp.unrecognized_fields) or store.now())
    store.remember_time(root, timestamp, kept_version)
    fetched = Metadata[Targets].from_bytes((store.directory / f"{Targets.type}.json").read_bytes())
    return _Result(info, fetched, store.newest_targets(root, fetched))


def _trusted_info(store: TrustStore, fetcher: TransportFetcher, root: Root, target_path: str) -> TargetFile:
    """Return length and hash of the target, from metadata that the whole workflow has passed. Raises RepositoryError."""
    found = _refreshed(store, fetcher, root, target_path)
    if found.info is None:
        raise UntrustedError(
            f"no trusted key signs {target_path}; ask its publisher to sign and publish it", "not_signed"
        )
    if found.newest.signed.version > found.fetched.signed.version:
        # From a bundle file perhaps: what they have taken away stays away.
        product = target_path.partition("/")[0]
        role = (store.directory / f"{quote(product, '')}.json").read_bytes()
        _verify_product(found.newest.signed, product, target_path, Metadata[Targets].from_bytes(role))
    return found.info


def offline_manifest(store: TrustStore, metadata: Mapping[str, bytes], product: str, path: str, data: bytes) -> None:
    """Check the manifest of a bundle file against the chain in it: everything that is checked online, freshness aside.

    Where the device knows newer top-level targets from the server, those decide which key may sign for the product: a key
    that was withdrawn does not come back by a file. Raises UntrustedError.
    """
    names = sorted((name for name in metadata if name.endswith(".root.json")), key=lambda name: int(name.split(".")[0]))
    store.tidy()
    root = store.keep_roots(metadata[name] for name in names).signed
    with _named("the bundle's targets.json"):
        targets = Metadata[Targets].from_bytes(metadata.get("targets.json", b""))
        verify(root, Targets.type, targets)
    targets = store.newest_targets(root, targets)
    with _named(f"the bundle's {product}.json"):
        role = Metadata[Targets].from_bytes(metadata.get(f"{product}.json", b""))
        _verify_product(targets.signed, product, path, role)
    info = role.signed.targets.get(path)
    if info is None:
        raise UntrustedError(f"the bundle's {product}.json does not sign {path}", "not_signed")
    _check_manifest(info, data)


def _verify_product(targets: Targets, product: str, path: str, role: Metadata[Targets]) -> None:
    """Check that `targets` lets `role` sign for the product. Raises UntrustedError, RepositoryError."""
    if targets.delegations is None or not any(
        name == product for name, _ in targets.delegations.get_roles_for_target(path)
    ):
        raise UntrustedError(f"the fleet's owner has not allowed anybody to sign for {product}", "not_signed")
    verify(targets, product, role)


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
                f"signed metadata has expired ({said}): the server is out of date or holds updates back, or this device's "
                f"clock ({datetime.now(UTC):%Y-%m-%d}) is wrong; check both"
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
