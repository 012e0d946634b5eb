"""The list of the Web App's copy in the image: a device restores by it, and sees damage by it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scripts.image.run import BuildError
from zentrid.core.files import check_name
from zentrid.core.grammar import CommandError
from zentrid.core.webapp import FIRST_PAGE, FOLDER, LIST_NAME, WebAppListError, list_of

WEBAPP: Final = "usr/share/zentri/webapp"
"""Where the copy lies in the root file system."""


def list_webapp(root: Path, version: str) -> None:
    """Write the list of the Web App's copy in the image, by which a device sees damage. Without a Web App: nothing.

    Raises BuildError for a file that no device could hold, or an app without a first page.
    """
    folder = root / WEBAPP
    if not folder.is_dir():
        return
    contents = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / LIST_NAME
    }
    try:
        if FIRST_PAGE not in contents:
            raise WebAppListError(f"{FIRST_PAGE} is missing")
        for name in contents:
            check_name(f"{FOLDER}/{name}")
        made = list_of(version, contents)
    except (WebAppListError, CommandError) as error:
        raise BuildError(f"the Web App in {WEBAPP} cannot be used: {error}") from error
    (folder / LIST_NAME).write_bytes(made.to_bytes())
