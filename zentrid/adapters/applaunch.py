"""Before a start of the boot application: its program is found, its folder and its cage are made. Blocking."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from zentrid.adapters.appprocess import Launch, StartError
from zentrid.adapters.cgroup import Cage
from zentrid.adapters.items import FILES_LINK
from zentrid.adapters.packages import find_package
from zentrid.core.apps import CANNOT_RUN, NOT_FOUND, AppCommand, AppError, AppLimits, parse_command


def prepare(
    setting: str, folders: Sequence[Path], limits: AppLimits, cage: Cage, *, account: str | None, home: Path
) -> Launch:
    """Find the program of a setting, make its `home` and its cage. `account` None: our own user. Raises StartError."""
    try:
        command = parse_command(setting)
        if command is None:
            raise StartError(NOT_FOUND, "none is set any more")
        argv, folder = _program(command, folders)
    except StartError:
        raise
    except AppError as error:
        raise StartError(CANNOT_RUN, str(error)) from error
    try:
        ids = _ids(account)
        _make_home(home, ids)
        cage.prepare(limits)
    except OSError as error:
        raise StartError(CANNOT_RUN, f"it cannot be confined ({error})") from error
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(home), "USER": account or "", "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108 - a folder for everybody is what it is
        "PYTHONUNBUFFERED": "1",  # else the last lines before a crash would be lost
        "ZENTRI_APP": command.name, "ZENTRI_APP_DIR": str(folder), "ZENTRI_FILES": str(FILES_LINK),
    }  # fmt: skip
    return Launch(command.name, argv, environment, home, ids, limits.files)


def _program(command: AppCommand, folders: Sequence[Path]) -> tuple[tuple[str, ...], Path]:
    if command.is_path:
        return (command.target, *command.arguments), Path(command.target).parent
    found = find_package(folders, command.target)
    if found is None:
        places = " or ".join(str(folder) for folder in folders)
        raise StartError(NOT_FOUND, f"there is no application called {command.target} in {places}")
    package, folder = found
    return (str(folder / package.command[0]), *package.command[1:], *command.arguments), folder


def _ids(account: str | None) -> tuple[int, int] | None:
    if account is None:
        return None
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise OSError(f"there is no user {account}") from None
    return entry.pw_uid, entry.pw_gid


def _make_home(home: Path, ids: tuple[int, int] | None) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if ids is not None and home.lstat().st_uid != ids[0]:
        os.chown(home, *ids, follow_symlinks=False)
