"""How the door's process ends: its supervisor tells by the exit status whether something is wrong."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.httpdoor import listening
from zentrid.http.config import Config


@pytest.mark.parametrize(("after", "status"), [(b"", 0), (b"{nonsense\n", 1)])
async def test_a_failure_inside_does_not_look_like_an_ordinary_end(tmp_path: Path, after: bytes, status: int) -> None:
    with listening() as http:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "zentrid.http",
            stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, pass_fds=(http.fileno(),),
        )  # fmt: skip
        config = Config(console=str(tmp_path / "console.sock"), http_fd=http.fileno())
        async with asyncio.timeout(30):
            _, said = await process.communicate(config.to_line() + after)
    assert (process.returncode, bool(said)) == (status, bool(status)), said
