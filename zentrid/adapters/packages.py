"""Application packages on the disk: folders with an `app.json`."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from zentrid.core.apps import MAX_DESCRIPTION_BYTES, NAME_PATTERN, AppError, AppInfo, Package, parse_package

MAX_PACKAGES: Final = 64


def find_package(folders: Sequence[Path], name: str) -> tuple[Package, Path] | None:
    """Return the first package called `name`, and its folder; None if no folder has one. Raises AppError if it is bad."""
    for top in folders:
        folder = top / name
        if _is_folder(folder):
            return read_package(folder), folder
    return None


def _is_folder(path: Path) -> bool:
    """Tell whether it is a folder. Raises AppError if the disk does not say: then it is no reason to take the next one."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise AppError(f"{path} cannot be read ({error.strerror})") from error


def read_package(folder: Path) -> Package:
    """Read the package in a folder. Raises AppError."""
    try:
        with (folder / "app.json").open("rb") as file:
            data = file.read(MAX_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise AppError(f"{folder / 'app.json'} cannot be read ({error.strerror})") from error
    try:
        return parse_package(data, folder.name)
    except AppError as error:
        raise AppError(f"{folder}: {error}") from error


def list_packages(folders: Sequence[Path]) -> list[AppInfo]:
    """Return the packages of all folders, at most MAX_PACKAGES; the first folder that has a name counts."""
    found: dict[str, AppInfo] = {}
    for top in folders:
        for folder in _folders_in(top):
            if folder.name not in found and len(found) < MAX_PACKAGES:
                found[folder.name] = replace(_info(folder), source=source_of(top))
    return list(found.values())


def source_of(top: Path) -> str:
    """Return where the packages in a folder are from: `bundle`, `data` or `image`."""
    if top.parent.name.startswith("slot-"):
        return "bundle"
    return "image" if top.is_relative_to("/usr") else "data"


def _folders_in(top: Path) -> list[Path]:
    try:
        return sorted(path for path in top.iterdir() if NAME_PATTERN.fullmatch(path.name) and path.is_dir())
    except OSError:
        return []


def _info(folder: Path) -> AppInfo:
    try:
        package = read_package(folder)
    except AppError as error:
        return AppInfo(folder.name, "-", "bad", description=str(error))
    return AppInfo(package.name, package.version, "off", description=package.description)
