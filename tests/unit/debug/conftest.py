"""A sample application compiled once, and its crashes."""

import pytest

from tests.support.cores import Built, CoreParts, build_sample, crash_of


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sample application with its symbol file."""
    return build_sample(tmp_path_factory.mktemp("sample") / "built")


@pytest.fixture(scope="session")
def crashes(sample: Built, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CoreParts]:
    """What real crashes leave, by their kind."""
    folder = tmp_path_factory.mktemp("crashes")
    return {how: crash_of(sample.program, folder / how, "--after", "0", "--crash", how) for how in ("segv", "raise")}
