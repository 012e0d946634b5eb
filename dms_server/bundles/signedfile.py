"""One file of signed metadata, read but not believed yet."""

from __future__ import annotations

from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # the package gives these names without listing them
    Metadata,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from dms_server.errors import UploadRefusedError
from zentrid.bundle.zbfile import MAX_METADATA_BYTES

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


def parse(kind: type[S], data: bytes, what: str) -> Metadata[S]:
    """Return the signed metadata in `data`, not verified; raises UploadRefusedError for another kind."""
    if len(data) > MAX_METADATA_BYTES:
        raise UploadRefusedError(f"{what} is larger than {MAX_METADATA_BYTES} bytes")
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
    except (DeserializationError, RepositoryError) as error:
        raise UploadRefusedError(f"{what} is not TUF metadata; make it again with scripts/bundle sign") from error
    if not isinstance(metadata.signed, kind):
        raise UploadRefusedError(f"{what} holds the role {metadata.signed.type}, not {kind.type}")
    return metadata
