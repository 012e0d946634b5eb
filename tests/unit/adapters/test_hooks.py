"""Hooks, run for real."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.support.fleet import make_release, make_rootfs
from zentrid.adapters.hooks import MAX_HOOKS, MAX_SENTENCE_CHARS, Limits, install_facts, run_hooks


def hook(folder, name, text, mode=0o755):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)


async def test_no_folder_and_no_hooks_are_fine(tmp_path):
    assert await run_hooks(tmp_path / "none", "health") == ()
    assert await run_hooks(tmp_path, "health") == ()


async def test_a_hook_that_says_yes_is_silent_and_one_that_says_no_gives_its_reason(tmp_path):
    hook(tmp_path, "10-yes", "echo all is well; exit 0")
    hook(tmp_path, "20-no", "echo the door is open; echo more; exit 1")
    assert await run_hooks(tmp_path, "health") == ("health hook 20-no: the door is open",)


async def test_a_hook_without_words_gives_its_status(tmp_path):
    hook(tmp_path, "10-no", "exit 7")
    assert await run_hooks(tmp_path, "health") == ("health hook 10-no: exit status 7",)


async def test_files_that_are_not_executable_are_no_hooks(tmp_path):
    hook(tmp_path, "readme", "exit 1", mode=0o644)
    assert await run_hooks(tmp_path, "health") == ()


async def test_a_hook_that_hangs_has_failed_and_is_killed(tmp_path):
    hook(tmp_path, "10-hang", "exec sleep 60")
    (answer,) = await run_hooks(tmp_path, "health", Limits(0.3, 5))
    assert "did not answer within 0.3 s" in answer


async def test_a_hook_that_cannot_be_started_has_failed(tmp_path):
    (tmp_path / "10-bad").write_bytes(b"\x7fELFnot really")
    (tmp_path / "10-bad").chmod(0o755)
    (answer,) = await run_hooks(tmp_path, "health")
    assert "cannot be started" in answer


@pytest.mark.parametrize("count", [MAX_HOOKS + 5])
async def test_endless_output_and_too_many_hooks_are_bounded(tmp_path, count):
    hook(tmp_path, "00-loud", "head -c 1000000 /dev/zero | tr '\\0' x; exit 1")
    for n in range(count):
        hook(tmp_path, f"10-{n:02}", "exit 1")
    answers = await run_hooks(tmp_path, "health")
    assert len(answers) == MAX_HOOKS
    assert len(answers[0]) < MAX_SENTENCE_CHARS + 40


def alive(pid_file):
    """Tell whether the process whose number is in the file runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_at_the_limit_what_a_hook_started_is_killed_too(tmp_path):
    hook(tmp_path, "10-hang", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    (answer,) = await run_hooks(tmp_path, "health", Limits(0.5, 5))
    assert "did not answer within 0.5 s" in answer
    await until(lambda: not alive(tmp_path / "child"))


async def test_a_hook_leaves_nothing_running_and_is_not_waited_for_because_of_it(tmp_path):
    hook(tmp_path, "10-daemon", f"sleep 60 & echo $! > {tmp_path}/child; exit 0")
    begin_s = time.monotonic()
    assert await run_hooks(tmp_path, "health", Limits(20, 20)) == ()
    assert time.monotonic() - begin_s < 5
    await until(lambda: not alive(tmp_path / "child"))


async def test_one_that_escapes_its_group_with_the_pipe_costs_a_second_at_most(tmp_path):
    hook(tmp_path, "10-escape", f"setsid sleep 8 & echo $! > {tmp_path}/child; echo no; exit 1")
    begin_s = time.monotonic()
    assert await run_hooks(tmp_path, "health", Limits(6, 6)) == ("health hook 10-escape: no",)
    assert time.monotonic() - begin_s < 4


async def test_cancelling_kills_the_hook(tmp_path):
    hook(tmp_path, "10-hang", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    task = asyncio.create_task(run_hooks(tmp_path, "pre-install", Limits(50, 50)))
    await until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not alive(tmp_path / "child"))


async def test_the_limit_for_all_together_counts_those_that_did_not_get_their_turn(tmp_path):
    for number in (1, 2, 3, 4):
        hook(tmp_path, f"{number}-slow", "sleep 0.4")
    answers = await run_hooks(tmp_path, "health", Limits(5, 0.6))
    assert answers[-1] == "health hooks took longer than 0.6 s together; 3-slow was not asked"
    assert "2-slow did not answer" in answers[0]
    assert len(answers) == 2


async def test_what_a_hook_is_told(tmp_path):
    hook(
        tmp_path,
        "10-tell",
        'echo "$ZENTRI_HOOK $ZENTRI_PRODUCT $ZENTRI_FROM $ZENTRI_VERSION [$ZENTRI_ITEMS] [$HOME]"; exit 1',
    )
    facts = install_facts(make_release("1.1.0", make_rootfs(1, blocks=240)).manifest, "1.0.0")
    (answer,) = await run_hooks(tmp_path, "pre-install", facts=facts)
    assert answer.endswith(": pre-install DEMO-VIRT_SENSOR 1.0.0 1.1.0 [kernel:kernel rootfs:rootfs] []"), answer


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
async def test_a_hook_that_others_may_change_is_not_run(tmp_path, mode):
    hook(tmp_path, "10-open", f"touch {tmp_path}/ran", mode=mode)
    (answer,) = await run_hooks(tmp_path, "health")
    assert "can be changed by others" in answer
    assert not (tmp_path / "ran").exists()


async def test_a_hook_from_another_file_system_is_not_run(tmp_path):
    """A link out of the verified image would let the data partition say what runs as root."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    outside = shared / f"zentri-hook-{os.getpid()}"
    hook(shared, outside.name, f"touch {tmp_path}/ran")
    try:
        (tmp_path / "10-link").symlink_to(outside)
        (answer,) = await run_hooks(tmp_path, "health")
    finally:
        outside.unlink()
    assert "is not part of the image" in answer
    assert not (tmp_path / "ran").exists()
