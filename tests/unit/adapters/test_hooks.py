"""Hooks, run for real."""

import pytest

from zentrid.adapters.hooks import MAX_HOOKS, MAX_SENTENCE_CHARS, run_hooks


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
    (answer,) = await run_hooks(tmp_path, "health", timeout_s=0.3)
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
