"""The store of symbol files: each account its own, checked before they are kept, found by build-id."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from dms_server.clock import now
from dms_server.db import Database, Session
from dms_server.errors import BadRequestError, ConflictError, NotFoundError, UploadRefusedError
from dms_server.faults.models import SymbolRow
from dms_server.faults.reader import Reader, UnreadableError
from dms_server.files import move_durably
from dms_server.settings import Settings

log = structlog.get_logger()

BUILD_ID_PATTERN = re.compile(r"[0-9a-f]{8,64}")
PAGE_MAX = 1000
FILES_MAX = 20_000
"""Symbol files of one account."""


class Symbols:
    """Symbol files below the data folder, named by their SHA-256; one is added or removed at a time."""

    def __init__(self, db: Database, settings: Settings, reader: Reader) -> None:
        self._db = db
        self._settings = settings
        self._folder = settings.data / "symbols"
        self._reader = reader
        self._turn = asyncio.Lock()

    def path(self, sha256: str) -> Path:
        """Return where the file with that content is kept."""
        return self._folder / sha256[:2] / f"{sha256}.debug"

    async def put(self, owner_id: int, build_id: str, upload: Path) -> bool:
        """Check an uploaded file and keep it; return False when exactly this one was there already.

        Another file for the same build-id takes the place of the one before: one with line tables may follow one without.
        Raises UploadRefusedError (no ELF file, another build-id), ConflictError (the account's limits).
        """
        if not BUILD_ID_PATTERN.fullmatch(build_id):
            raise BadRequestError("a build-id is 8 to 64 hexadecimal digits, in lower case")
        sha256, size_bytes = await asyncio.to_thread(_digest, upload)
        known = (await self.known(owner_id, (build_id,))).get(build_id)
        if known == sha256:
            return False
        try:
            found = (await self._reader.read(upload)).build_id
        except UnreadableError as error:
            raise UploadRefusedError(f"this is no symbol file: {error}; send the ELF file with its symbols") from error
        if found != build_id:
            what = f"has the build-id {found[:64]}" if found else "has no build-id"
            raise UploadRefusedError(f"this symbol file {what}, not {build_id}; send it under its own build-id")
        async with self._turn:
            await self._keep(owner_id, SymbolRow(build_id=build_id, sha256=sha256, size_bytes=size_bytes), upload)
        log.info("symbols_uploaded", build_id=build_id, size=size_bytes, by=owner_id)
        return True

    async def _keep(self, owner_id: int, row: SymbolRow, upload: Path) -> None:
        """Store the file, then the row. A crash in between is mended by uploading again."""
        async with self._db.read() as session:
            await self._check_limits(session, owner_id, row)
        await asyncio.to_thread(_store, upload, self.path(row.sha256))
        values = {"sha256": row.sha256, "size_bytes": row.size_bytes, "uploaded_at": now()}
        statement = sqlite_insert(SymbolRow).values(owner_id=owner_id, build_id=row.build_id, **values)
        async with self._db.write() as session:
            before = await session.scalar(
                select(SymbolRow.sha256).where(SymbolRow.owner_id == owner_id, SymbolRow.build_id == row.build_id)
            )
            await session.change(
                statement.on_conflict_do_update(index_elements=[SymbolRow.owner_id, SymbolRow.build_id], set_=values)
            )
        if before is not None:
            await self._drop_unused(before)

    async def _check_limits(self, session: Session, owner_id: int, row: SymbolRow) -> None:
        others = (SymbolRow.owner_id == owner_id, SymbolRow.build_id != row.build_id)
        counted = await session.row(
            select(func.count(), func.coalesce(func.sum(SymbolRow.size_bytes), 0)).where(*others)
        )
        count, held_bytes = (int(counted[0]), int(counted[1])) if counted is not None else (0, 0)
        most_bytes = self._settings.symbols_account_max_bytes
        if count >= FILES_MAX or held_bytes + row.size_bytes > most_bytes:
            raise ConflictError(
                f"an account has at most {FILES_MAX} symbol files with {most_bytes} bytes in all; delete some of them, "
                "or ask the operator to raise symbols_account_max_bytes"
            )

    async def _drop_unused(self, sha256: str) -> None:
        async with self._db.read() as session:
            used = await session.scalar(select(SymbolRow.id).where(SymbolRow.sha256 == sha256).limit(1))
        if used is None:
            await asyncio.to_thread(self.path(sha256).unlink, missing_ok=True)

    async def delete(self, owner_id: int, build_id: str) -> None:
        """Forget the account's file for a build-id; raises NotFoundError."""
        async with self._turn:
            known = (await self.known(owner_id, (build_id,))).get(build_id)
            if known is None:
                raise NotFoundError("you have no symbol file for that build-id")
            async with self._db.write() as session:
                await session.change(
                    delete(SymbolRow).where(SymbolRow.owner_id == owner_id, SymbolRow.build_id == build_id)
                )
            await self._drop_unused(known)

    async def known(self, owner_id: int | None, build_ids: Collection[str]) -> dict[str, str]:
        """Return which of the build-ids the account has symbol files for, with the SHA-256 of each."""
        if owner_id is None or not build_ids:
            return {}
        found: dict[str, str] = {}
        wanted = sorted(build_ids)
        async with self._db.read() as session:
            for start in range(0, len(wanted), PAGE_MAX // 2):
                part = wanted[start : start + PAGE_MAX // 2]
                statement = select(SymbolRow.build_id, SymbolRow.sha256)
                rows = await session.rows(statement.where(SymbolRow.owner_id == owner_id, SymbolRow.build_id.in_(part)))
                found |= {row[0]: row[1] for row in rows}
        return found

    async def get(self, owner_id: int, build_id: str) -> SymbolRow:
        """Return what is known about the account's file for a build-id; raises NotFoundError."""
        statement = select(SymbolRow).where(SymbolRow.owner_id == owner_id, SymbolRow.build_id == build_id)
        async with self._db.read() as session:
            row = await session.scalar(statement)
        if row is None:
            raise NotFoundError("you have no symbol file for that build-id")
        return row

    async def page(self, owner_id: int, *, offset: int = 0, limit: int = PAGE_MAX) -> tuple[int, Sequence[SymbolRow]]:
        """Return how many symbol files the account has, and one page of them by build-id."""
        statement = select(SymbolRow).where(SymbolRow.owner_id == owner_id)
        async with self._db.read() as session:
            total = await session.scalar(select(func.count()).select_from(statement.subquery()))
            ordered = statement.order_by(SymbolRow.build_id).offset(max(offset, 0))
            rows = await session.scalars(ordered.limit(min(max(limit, 1), PAGE_MAX)))
        return total or 0, rows


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return digest.hexdigest(), stream.tell()


def _store(upload: Path, target: Path) -> None:
    with upload.open("rb") as stream:
        os.fsync(stream.fileno())
    move_durably(upload, target)
