"""Run by the Python that the image will have: writes the compiled code of zentrid's dataclasses (`zentrid/dataclasscode.py`).

`python3 scripts/image/dataclasscode.py <folder that holds zentrid>` imports every module of zentrid that can be imported where
this runs. It stands alone: nothing of this project but zentrid itself is on that Python's path.
"""

from __future__ import annotations

import builtins
import importlib
import marshal
import sys
from importlib.util import source_hash
from pathlib import Path
from types import CodeType


def modules(package: Path) -> list[str]:
    """Return the names of all modules below the package's folder that are not programs."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        if parts[-1] != "__main__":
            found.append(".".join(parts).removesuffix(".__init__"))
    return found


def collect(names: list[str]) -> tuple[dict[bytes, bytes], list[str]]:
    """Import the modules; return the marshalled code of every text that `dataclasses` executed, and what could not be imported.

    The classes of a module that cannot be imported here are compiled on the device.
    """
    from zentrid.dataclasscode import replace_exec  # found on the path that main() sets

    table: dict[bytes, bytes] = {}
    failed = []

    def execute(source: str | CodeType, *scopes: dict[str, object]) -> None:
        if isinstance(source, str):
            code = compile(source, "<dataclass>", "exec")
            table[source_hash(source.encode())] = marshal.dumps(code)
            source = code
        builtins.exec(source, *scopes)  # noqa: S102  # as dataclasses does

    replace_exec(execute)
    try:
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError as error:
                failed.append(f"{name}: {error}")
    finally:
        replace_exec(builtins.exec)
    return table, failed


def main() -> int:
    """Write the file into the package below the folder that the command line names."""
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder))
    from zentrid.dataclasscode import FILE, encode

    package = folder / "zentrid"
    table, failed = collect(modules(package))
    for line in failed:
        print(f"passed over: {line}")
    (package / FILE.name).write_bytes(encode(table))
    print(f"{len(table)} dataclasses")
    return 0


if __name__ == "__main__":
    sys.exit(main())
