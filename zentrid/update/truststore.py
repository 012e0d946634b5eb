"""What the device keeps of signed metadata: the walk of roots, the newest delegations, and the time that was signed last.

The trusted root comes from the identity partition on every run and is walked forward through the root files kept on the
data partition, each verified again: whatever somebody writes into the data partition, trust starts in manufacture. Nothing
that lies there can stop updates for ever: what is no use is thrown away and fetched anew.

Imports `tuf`, which is large and slow to import: import this module only in a worker that needs it.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp  # type: ignore[attr-defined]

from zentrid.bundle.signedtime import signed_at
from zentrid.update.durable import Hook, flush_folder, no_hook, remove_durable, remove_tree, write_durable
from zentrid.update.errors import UntrustedError, printable

MAX_METADATA_BYTES: Final = 512 * 1024
MAX_ROOT_ROTATIONS: Final = 256
_MAX_SMALL_BYTES: Final = 200
_TIME_FILE: Final = "time.json"
_ONLINE_FILE: Final = "online.json"
_TARGETS_FILE: Final = "newest.targets.json"
_BAD: Final = (exceptions.RepositoryError, ValueError, TypeError, KeyError, RecursionError)


class Chain(NamedTuple):
    """The newest root that is reached from the identity's."""

    root: Metadata[Root]
    first: int
    """The version of the identity's root."""
    online_since: int
    """The version of the root that last changed the keys of snapshot and timestamp."""


class TrustStore:
    """The metadata folder on the data partition. Every change of it is durable, and safe to be cut at any step."""

    def __init__(self, directory: Path, identity_root: bytes, built: datetime, hook: Hook = no_hook) -> None:
        """Take the root of manufacture and the image's build time, before which no clock is believed."""
        self._directory = directory
        self._identity_root = identity_root
        self._built = built
        self._hook = hook

    @property
    def directory(self) -> Path:
        """Where the TUF client keeps its files."""
        return self._directory

    def keep(self, name: str, data: bytes) -> None:
        """Write one of the TUF client's files, durably."""
        write_durable(self._directory / name, data, self._hook)

    # --- roots ----------------------------------------------------------------------------------------------------
    def chain(self) -> Chain:
        """Return the newest root that is reached from the identity's root. Raises UntrustedError if that one is bad."""
        try:
            root = Metadata[Root].from_bytes(self._identity_root)
            verify(root.signed, Root.type, root)
        except _BAD as error:
            sentence = (
                f"the root of trust in the identity partition is damaged ({printable(str(error), 160)}); "
                "the device must be provisioned again"
            )
            raise UntrustedError(sentence, "bad_metadata") from error
        chain = Chain(root, root.signed.version, root.signed.version)
        for data in self._kept_roots(root.signed.version):
            try:
                chain = _next(chain, data)
            except _BAD:
                break  # the rest is fetched again
        return chain

    def add_root(self, chain: Chain, data: bytes) -> Chain:
        """Return the chain with one root more, which is durable then. Raises RepositoryError for one that does not follow."""
        longer = _next(chain, data)
        folder = self._directory / "roots"
        if not folder.is_dir():
            folder.mkdir(parents=True)
            flush_folder(self._directory)
        write_durable(folder / f"{longer.root.signed.version}.root.json", data, self._hook)
        return longer

    def keep_roots(self, candidates: Iterable[bytes]) -> Metadata[Root]:
        """Make each following root durable that the ones before it sign; return the newest. The others are passed over."""
        chain = self.chain()
        for data in candidates:
            with suppress(*_BAD):
                chain = self.add_root(chain, data)
        return chain.root

    def _kept_roots(self, after: int) -> Iterator[bytes]:
        for version in range(after + 1, after + 1 + MAX_ROOT_ROTATIONS):
            data = _read(self._directory / "roots" / f"{version}.root.json")
            if data is None:
                return
            yield data

    # --- before the TUF client runs ------------------------------------------------------------------------------------
    def tidy(self) -> None:
        """Throw away what nothing here has written or a power cut has left: it would only take space, or be in the way."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for folder, kept_folders in ((self._directory, ("roots",)), (self._directory / "roots", ())):
            for path in list(folder.iterdir()) if folder.is_dir() else ():
                with suppress(OSError):
                    _throw_away_unless_metadata(path, kept_folders)

    def prepare(self, chain: Chain) -> None:
        """Give the TUF client the root to start from, and take away what no longer counts.

        When the keys of snapshot or timestamp were changed, what they signed is forgotten, versions and time included:
        whoever had the old keys may have raised them so far that nothing honest would ever be newer.
        Source: The Update Framework's specification, 5.3.11, recovery from fast-forward attacks.
        """
        since = self._read_small(_ONLINE_FILE, "since_root")
        if (since if isinstance(since, int) else chain.first) != chain.online_since:
            for name in (f"{Snapshot.type}.json", f"{Timestamp.type}.json", _TIME_FILE):
                remove_durable(self._directory / name, self._hook)
        self._write_small(_ONLINE_FILE, {"since_root": chain.online_since})
        self.keep(f"{Root.type}.json", chain.root.to_bytes())

    # --- time --------------------------------------------------------------------------------------------------------
    def now(self) -> datetime:
        """Return the time: never before the image was built or the last timestamp was signed, whatever the clock says."""
        return max(datetime.now(UTC), self._built, self.signed_time() or self._built)

    def signed_time(self) -> datetime | None:
        """Return when the newest timestamp that was seen was signed; None: not known."""
        text = self._read_small(_TIME_FILE, "signed")
        return parse_time(text) if isinstance(text, str) else None

    def remember_time(self, root: Root, timestamp: Timestamp, kept_version: int) -> bool:
        """Remember when a verified timestamp was signed; tell whether the time was taken back by that.

        Never the clock's time: one that once said 2099 would end all updates for ever. A server's clock may be wrong too: what is
        later than root's end is no time, and a newer timestamp with an earlier time corrects an older one. `kept_version` is
        the version of the timestamp that was kept before, 0: none, and then nothing is taken back.
        """
        moment, known = signed_at(timestamp.unrecognized_fields), self.signed_time()
        if moment is None or moment >= root.expires or moment >= timestamp.expires:
            return False
        earlier = known is not None and moment < known
        if moment == known or (earlier and not 0 < kept_version < timestamp.version):
            return False
        self._write_small(_TIME_FILE, {"signed": moment.isoformat()})
        return earlier

    # --- what was seen ---------------------------------------------------------------------------------------------------
    def kept_timestamp_version(self, root: Root) -> int:
        """Return the version of the timestamp that is kept and still signed as it must be; 0: none."""
        with suppress(*_BAD):
            kept = Metadata[Timestamp].from_bytes(_read(self._directory / f"{Timestamp.type}.json") or b"")
            verify(root, Timestamp.type, kept)
            return kept.signed.version
        return 0

    def newest_targets(self, root: Root, offered: Metadata[Targets]) -> Metadata[Targets]:
        """Return the newest top-level targets that the device knows, `offered` (verified already) among them.

        A newer one that is offered is remembered, wherever it came from: a key that was taken away stays away.
        """
        newest = offered
        for name in (_TARGETS_FILE, f"{Targets.type}.json"):
            with suppress(*_BAD):
                known = Metadata[Targets].from_bytes(_read(self._directory / name) or b"")
                verify(root, Targets.type, known)
                if known.signed.version > newest.signed.version:
                    newest = known
        data = newest.to_bytes()
        if _read(self._directory / _TARGETS_FILE) != data:
            self.keep(_TARGETS_FILE, data)
        return newest

    # --- small files -------------------------------------------------------------------------------------------------------
    def _read_small(self, name: str, field: str) -> object:
        with suppress(*_BAD):
            return json.loads((_read(self._directory / name) or b"")[:_MAX_SMALL_BYTES])[field]
        return None

    def _write_small(self, name: str, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        if _read(self._directory / name) != data:
            self.keep(name, data)


def verify(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    """Check that `metadata` is of this role's kind and has the signatures that `delegator` demands of it.

    Raises RepositoryError, or ValueError for a role that is not delegated.
    """
    kind = role if role in (Root.type, Timestamp.type, Snapshot.type) else Targets.type
    if metadata.signed.type != kind:
        raise exceptions.RepositoryError(f"expected {kind}, got {printable(str(metadata.signed.type), 20)}")
    delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)


def parse_time(text: str) -> datetime:
    """Return an ISO 8601 time as an aware one; the epoch for what is none."""
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    return datetime.fromtimestamp(0, UTC)


def _next(chain: Chain, data: bytes) -> Chain:
    """Return the chain with the root in `data`; an expired one may be passed through. Raises RepositoryError."""
    current = chain.root.signed
    following = Metadata[Root].from_bytes(data[:MAX_METADATA_BYTES])
    verify(current, Root.type, following)
    if following.signed.version != current.version + 1:
        raise exceptions.BadVersionNumberError(f"expected root {current.version + 1}, got {following.signed.version}")
    verify(following.signed, Root.type, following)
    changed = _online_keys(following.signed) != _online_keys(current)
    return Chain(following, chain.first, following.signed.version if changed else chain.online_since)


def _online_keys(root: Root) -> list[tuple[list[str], int]]:
    roles = (root.roles[role] for role in (Snapshot.type, Timestamp.type))
    return [(sorted(role.keyids), role.threshold) for role in roles]


def _read(path: Path) -> bytes | None:
    """Return a file's content as far as it can be metadata; None: there is none that can be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_METADATA_BYTES + 1)
    except OSError:
        return None


def _throw_away_unless_metadata(path: Path, kept_folders: tuple[str, ...]) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        if path.name not in kept_folders:
            remove_tree(path)
    elif not stat.S_ISREG(mode) or path.suffix != ".json" or path.stat().st_size > MAX_METADATA_BYTES:
        path.unlink(missing_ok=True)
