"""What all tests share; and how they are shared out when several run at once (`make test JOBS=2`): a file stays together, the
longest ones begin."""

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from zentrid.adapters.rights import KEEP_RIGHTS

os.environ[KEEP_RIGHTS] = "1"  # the device's users need not be there where the tests run

# How long one example takes says nothing where several boards share the processor. Each test has its own limit.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

_LONGEST_FIRST: Final = (
    "test_story.py",
    "test_faults.py",
    "test_safe_mode.py",
    "test_boot.py",
    "test_factory_reset.py",
)
"""Files whose end would else be waited for by everybody; then the other tests on the board, then all that need none."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep each file's tests in one process (they share boards); each story is a group of its own."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        story = item.path.name == "test_story.py"
        item.add_marker(pytest.mark.xdist_group(item.name if story else str(item.path)))
    items.sort(key=lambda item: _rank(item.path))


def _rank(path: Path) -> int:
    on_board = "board" in path.relative_to(Path(__file__).parent).parts[:1]
    if on_board and path.name in _LONGEST_FIRST:
        return _LONGEST_FIRST.index(path.name)
    return len(_LONGEST_FIRST) + (not on_board)
