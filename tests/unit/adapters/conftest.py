"""What several tests of adapters share."""

import pytest

from tests.support.appbench import Bench


@pytest.fixture
async def bench(tmp_path):
    one = Bench(tmp_path)
    yield one
    await one.end()
    assert not one.cage.occupied(), "something of the application is left"
