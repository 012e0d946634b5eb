"""The mark of a running supervisor."""

import os

from zentrid.adapters.alive import AliveMark


def test_the_first_start_finds_nothing(tmp_path):
    assert AliveMark(tmp_path / "run" / "alive").set() is None


def test_a_supervisor_that_was_killed_is_noticed_and_named(tmp_path):
    AliveMark(tmp_path / "alive").set()
    assert AliveMark(tmp_path / "alive").set() == os.getpid()


def test_one_that_ended_in_good_order_is_not(tmp_path):
    mark = AliveMark(tmp_path / "alive")
    mark.set()
    mark.clear()
    mark.clear()
    assert mark.set() is None


def test_a_mark_of_nonsense_counts_as_one(tmp_path):
    (tmp_path / "alive").write_text("what\n")
    assert AliveMark(tmp_path / "alive").set() == 0


def test_a_mark_that_cannot_be_set_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert AliveMark(tmp_path / "file" / "alive").set() == 0
    AliveMark(tmp_path / "file" / "alive").clear()
