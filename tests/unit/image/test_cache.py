"""The build cache: complete or absent, never half."""

import re
import threading
from pathlib import Path

import pytest

from scripts.image import release
from scripts.image.cache import Cache, hash_files, key_of


def test_builds_once(tmp_path):
    cache, calls = Cache(tmp_path), []

    def build(out):
        calls.append(out)
        (out / "file").write_text("x")

    first = cache.get("step", {"a": "1"}, build)
    assert (first / "file").read_text() == "x"
    assert cache.get("step", {"a": "1"}, build) == first
    assert len(calls) == 1


def test_other_inputs_are_another_result(tmp_path):
    cache = Cache(tmp_path)
    one = cache.get("step", {"a": "1"}, lambda out: None)
    assert cache.get("step", {"a": "2"}, lambda out: None) != one


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_or_interrupted_build_leaves_nothing(tmp_path, error):
    cache = Cache(tmp_path)

    def build(out):
        (out / "half").write_text("x")
        raise error

    with pytest.raises(error):
        cache.get("step", {"a": "1"}, build)
    assert not cache.path("step", {"a": "1"}).exists()
    assert not [p for p in (tmp_path / "step").iterdir() if p.is_dir()]
    done = cache.get("step", {"a": "1"}, lambda out: (out / "whole").touch())
    assert [p.name for p in done.iterdir()] == ["whole"]


def test_what_a_killed_build_left_is_removed_by_the_next_one(tmp_path):
    cache = Cache(tmp_path)
    name = cache.path("step", {"a": "1"}).name
    left, other = tmp_path / "step" / f".building-{name}-x", tmp_path / "step" / ".building-of-another-y"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    cache.get("step", {"a": "1"}, lambda out: None)
    assert not left.exists()
    assert other.exists(), "another build, which may be under way"


def test_two_builders_of_the_same_thing_build_it_once(tmp_path):
    cache, calls = Cache(tmp_path), []
    inside, go = threading.Event(), threading.Event()

    def build(out):
        calls.append(out)
        inside.set()
        assert go.wait(10)

    threads = [threading.Thread(target=cache.get, args=("step", {}, build)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(calls) == 1


def test_hash_sees_names_contents_and_executability_but_not_compiled_files(tmp_path):
    (tmp_path / "a").write_text("x")
    before = hash_files([tmp_path], tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").write_text("y")
    assert hash_files([tmp_path], tmp_path) == before
    (tmp_path / "a").chmod(0o755)
    executable = hash_files([tmp_path], tmp_path)
    assert executable != before
    (tmp_path / "a").rename(tmp_path / "b")
    assert hash_files([tmp_path], tmp_path) not in (before, executable)


def test_prune_keeps_the_newest(tmp_path):
    import os

    cache = Cache(tmp_path)
    made = [cache.get("s", {"n": str(n)}, lambda out: None) for n in range(4)]
    for n, path in enumerate(made):
        os.utime(path, (n, n))
    cache.prune("s", 2)
    assert [path.exists() for path in made] == [False, False, True, True]


def test_key_does_not_depend_on_order():
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})


def test_no_step_fills_the_cache_without_end():
    source = Path(release.__file__).read_text()
    steps = set(re.findall(r'self\._step\(\s*"([a-z-]+)"', source))
    assert len(steps) >= 8
    assert set(release.KEEP) == steps
