"""Making a payload usable: a program gets its `app.json`, a tar becomes a folder. Done by the worker, in a folder of its own.

The payload was read back against the signed tree before this looks at it. Then the supervisor takes over what was made:
`take_over` looks at kinds, sizes and links only, never into a file.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zentrid.core.apps import MAX_DESCRIPTION_BYTES, AppError, parse_package
from zentrid.core.items import (
    MAX_DEPTH,
    MAX_MEMBER_CHARS,
    MAX_MEMBERS,
    RESERVE_BYTES,
    RESERVE_INODES,
    TAR,
    elf_problem,
    generated_package,
    program_of,
)
from zentrid.update.errors import PayloadError, UpdateRefusedError

_DESCRIPTION: Final = "app.json"
_CHUNK_BYTES: Final = 1024 * 1024
_CLUSTER_BYTES: Final = 4096
_ELF_HEADER_BYTES: Final = 20
_MOST_LEVELS: Final = 2 * MAX_DEPTH
_PROGRAM_MODE: Final = 0o755
_FILE_MODE: Final = 0o644


@dataclass(frozen=True)
class UnpackJob:
    """One verified payload of an application."""

    name: str
    version: str
    entry: str | None
    kind: str
    size_bytes: int
    fd: int
    """The payload, open for reading."""
    folder: Path
    """Empty; becomes the application's folder."""


def unpack(job: UnpackJob, machine: str) -> None:
    """Make the application's folder. Raises PayloadError or UpdateRefusedError with what is wrong with the application."""
    try:
        if job.kind == TAR:
            _unpack_tar(job)
        else:
            _copy(job.fd, job.size_bytes, job.folder / _entry(job))
        _describe(job, machine)
    except tarfile.TarError as error:
        raise _bad(job, f"is in a tar that cannot be unpacked ({error}); pack it again") from error
    except OSError as error:
        raise _bad(job, f"cannot be unpacked ({error.strerror or error}); check the data partition") from error


def _bad(job: UnpackJob, problem: str) -> PayloadError:
    return PayloadError(f"application {job.name} {problem}")


def _entry(job: UnpackJob) -> str:
    if not job.entry:
        raise _bad(job, "has no program to start; build the bundle again")
    return job.entry


def _copy(fd: int, size_bytes: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PROGRAM_MODE)
    try:
        at = 0
        while at < size_bytes:
            data = os.pread(fd, min(_CHUNK_BYTES, size_bytes - at), at)
            if not data:
                raise OSError("the payload ends too early")
            at += os.write(out, data)
        os.fchmod(out, _PROGRAM_MODE)
    finally:
        os.close(out)


# --- tar ----------------------------------------------------------------------------------------------------------------
def _unpack_tar(job: UnpackJob) -> None:
    with os.fdopen(os.dup(job.fd), "rb") as stream:
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            members = list(_checked(job, archive))
            _check_room(job, members)
            for member in members:
                archive.extract(member, job.folder, set_attrs=True, filter=_plain)


def _plain(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Return the member as it is unpacked: Python's own filter for data, and modes of this device's choice."""
    safe = tarfile.data_filter(member, folder)
    if member.issym():
        return safe
    mode = _PROGRAM_MODE if member.isdir() or (member.mode or 0) & stat.S_IXUSR else _FILE_MODE
    return safe.replace(mode=mode, deep=False)


def _checked(job: UnpackJob, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members; stricter than the filter, so that whoever looks at the signed tar knows what comes of it."""
    links: set[str] = set()
    seen: set[str] = set()
    size_bytes = 0
    for count, member in enumerate(archive, 1):
        if count > MAX_MEMBERS:
            raise _bad(job, f"has more than {MAX_MEMBERS} files and folders")
        name = member.name.removeprefix("./").rstrip("/")
        if name in ("", ".") and member.isdir():
            continue
        parts = name.split("/")
        if not _is_safe(name) or len(name) > MAX_MEMBER_CHARS or len(parts) > MAX_DEPTH:
            raise _bad(job, f"has a file whose path is not allowed: {name[:60]!r}")
        if name in seen and not member.isdir():
            raise _bad(job, f"has {name[:60]!r} twice")
        seen.add(name)
        if any("/".join(parts[:end]) in links for end in range(1, len(parts) + 1)):
            raise _bad(job, f"has {name[:60]!r} behind a link")
        if member.issym():
            _check_link(job, name, member.linkname)
            links.add(name)
        elif member.issparse() or not (member.isreg() or member.isdir()):
            raise _bad(job, f"has {name[:60]!r}, which is neither a file, a folder nor a symbolic link")
        size_bytes += member.size if member.isreg() else 0
        if size_bytes > job.size_bytes:
            raise _bad(job, "claims to be larger than its payload")
        yield member


def _is_safe(path: str) -> bool:
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(path.split("/"))


def _check_link(job: UnpackJob, name: str, target: str) -> None:
    """A link may lead to its own folder or below: `libx.so` → `libx.so.1`."""
    if not _is_safe(target) or len(target) > MAX_MEMBER_CHARS:
        raise _bad(job, f"has a link that leads away: {name[:60]!r}")


def _check_room(job: UnpackJob, members: list[tarfile.TarInfo]) -> None:
    free = os.statvfs(job.folder)
    needed = sum(-(-member.size // _CLUSTER_BYTES) * _CLUSTER_BYTES for member in members if member.isreg())
    folders = _CLUSTER_BYTES * sum(member.isdir() for member in members)
    if needed + folders + RESERVE_BYTES > free.f_bavail * free.f_frsize:
        raise UpdateRefusedError(
            "low_space",
            f"application {job.name} needs {needed + folders} bytes on the data partition; delete what is not needed there",
        )
    if len(members) + RESERVE_INODES > free.f_favail:
        raise UpdateRefusedError(
            "low_space", f"application {job.name} has {len(members)} files, more than the data partition has room for"
        )


# --- its description ----------------------------------------------------------------------------------------------------
def _describe(job: UnpackJob, machine: str) -> None:
    path = job.folder / _DESCRIPTION
    if path.is_symlink():
        raise _bad(job, f"has an {_DESCRIPTION} that is a link; pack the file itself")
    if not path.exists():
        path.write_bytes(generated_package(job.name, job.version, _entry(job)))
        path.chmod(_FILE_MODE)
    try:
        with path.open("rb") as file:
            package = parse_package(file.read(MAX_DESCRIPTION_BYTES + 1), job.name)
    except AppError as error:
        raise _bad(job, f"cannot be used: {error}; build the bundle again") from error
    program = program_of(package)
    if program is None:
        return
    found = job.folder / program
    if not found.is_file() or not found.stat().st_mode & stat.S_IXUSR:
        raise _bad(job, f"has no executable {program!r}; build the bundle again")
    with found.open("rb") as file:
        problem = elf_problem(file.read(_ELF_HEADER_BYTES), machine)
    if problem:
        raise UpdateRefusedError("wrong_machine", f"application {job.name}: {program} {problem}")


# --- the supervisor's side ----------------------------------------------------------------------------------------------
def take_over(folder: Path, owner: int | None, payload_bytes: int) -> None:
    """Make what the worker unpacked the device's own: only folders, files and links that stay inside, written to the medium.

    `owner`: the user and group to give it to; None: it stays ours. Raises PayloadError for anything that an unpacked
    application of `payload_bytes` cannot have, whatever the worker did.
    """
    found: list[Path] = []
    count = 0
    left_bytes = payload_bytes + MAX_DESCRIPTION_BYTES  # its description may have been made
    waiting = [folder]
    # By hand: Python's own walk ends in an exception of its own where folders are too deep.
    while waiting:
        top = waiting.pop()
        found.append(top)
        if len(top.parts) - len(folder.parts) > _MOST_LEVELS:
            raise PayloadError(f"{folder.name}: has folders that are too deep")
        with os.scandir(top) as entries:
            for entry in entries:
                count += 1
                if count > MAX_MEMBERS + 1:
                    raise PayloadError(f"{folder.name}: has too many files")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry))
                    continue
                found.append(Path(entry))
                left_bytes -= entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else 0
        if left_bytes < 0:
            raise PayloadError(f"{folder.name}: is larger than its payload")
    # From the deepest to the top, which is named only when all below is right.
    for path in reversed(found):
        _take_over(folder, path, owner)


def _take_over(top: Path, path: Path, owner: int | None) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        target = str(path.readlink())
        if not _is_safe(target):
            raise PayloadError(f"{top.name}: a link leads away")
        if owner is not None:
            os.chown(path, owner, owner, follow_symlinks=False)
        return
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and (not stat.S_ISREG(found.st_mode) or found.st_nlink != 1):
        raise PayloadError(f"{top.name}: holds something that is neither a file, a folder nor a link")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if owner is not None:
            os.fchown(fd, owner, owner)
        os.fchmod(fd, _PROGRAM_MODE if is_folder or found.st_mode & stat.S_IXUSR else _FILE_MODE)
        os.fsync(fd)
    finally:
        os.close(fd)
