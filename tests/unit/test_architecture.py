"""Rules of the architecture that a glance at the imports can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PURE = ("zentrid/core", "zentrid/bundle", "zentrid/debug")
IO_MODULES = {"asyncio", "socket", "subprocess", "threading", "ssl", "urllib3", "aiohttp", "tuf"}


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files_in(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((TOP / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", files_in(*PURE), ids=lambda p: str(p.relative_to(TOP)))
def test_the_pure_core_imports_no_io_and_no_adapter(path: Path):
    imported = imports_of(path)
    assert not {name.split(".")[0] for name in imported} & IO_MODULES
    own = {name for name in imported if name.startswith("zentrid")}
    allowed: tuple[str, ...] = ("zentrid.core", "zentrid.bundle", "zentrid.errors")
    if path.is_relative_to(TOP / "zentrid/debug"):
        allowed = ("zentrid.debug", "zentrid.core.text", "zentrid.errors", "zentrid.ports")
    assert all(name.startswith(allowed) for name in own), own


def test_only_the_app_builds_adapters():
    allowed = ("zentrid.adapters.settings", "zentrid.adapters.blockdev")
    for path in files_in("zentrid/commands", "zentrid/core", "zentrid/bundle"):
        own = {name for name in imports_of(path) if name.startswith("zentrid.adapters")}
        assert not own - set(allowed), f"{path}: {own}"


def test_the_device_imports_nothing_of_the_server_or_the_tools():
    for path in files_in("zentrid"):
        assert not {n for n in imports_of(path) if n.split(".")[0] in ("dms_server", "scripts", "tests")}, path


def test_the_server_imports_only_pure_device_code_and_no_tools():
    for path in files_in("dms_server"):
        for name in imports_of(path):
            assert not name.startswith(("scripts", "tests")), f"{path}: {name}"
            if name.startswith("zentrid"):
                assert name.startswith(
                    ("zentrid.bundle", "zentrid.core", "zentrid.debug", "zentrid.errors", "zentrid.ports")
                ), f"{path}: {name}"


@pytest.mark.parametrize("path", files_in("zentrid", "dms_server", "scripts"), ids=lambda p: str(p.relative_to(TOP)))
def test_files_stay_small(path: Path):
    assert len(path.read_text().splitlines()) <= 450


def test_the_supervisor_does_without_openssl() -> None:
    code = "import sys; sys.modules.update(dict.fromkeys(('ssl', '_hashlib'))); import zentrid.app; print('_ssl' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
