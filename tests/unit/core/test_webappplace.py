"""When Web App files are put in place by themselves: every rule, and records that are none."""

from dataclasses import replace

import pytest

from zentrid.core.webapp import FIRST_PAGE, LIST_NAME, AppList, WebAppListError, list_of, parse_list
from zentrid.core.webappplace import (
    Decision,
    Placed,
    What,
    begun,
    decide,
    ended,
    gone,
    hashes_of,
    parse_placed,
)

OLD = list_of("1.0.0", {FIRST_PAGE: b"old page", "app.js": b"same", "old.js": b"old"})
NEW = list_of("1.1.0", {FIRST_PAGE: b"new page", "app.js": b"same", "new.js": b"new"})
DONE = ended(begun(OLD, OLD.id, None))
HALF = begun(NEW, NEW.id, DONE)
THERE = hashes_of(OLD)
OTHER = "f" * 64
HALF_THERE = {**THERE, LIST_NAME: NEW.id, "new.js": hashes_of(NEW)["new.js"]}


def without(files: dict[str, str], *names: str) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name not in names}


@pytest.mark.parametrize(
    ("wanted", "last", "present", "what"),
    [
        (NEW, None, {}, What.PLACE),  # the first day
        (NEW, None, hashes_of(NEW), What.NOTE),
        (NEW, None, {"mine.html": OTHER}, What.LEAVE),  # an app of the owner's from before
        (NEW, None, {**hashes_of(NEW), FIRST_PAGE: OTHER}, What.LEAVE),
        (OLD, DONE, THERE, What.NOTHING),
        (OLD, DONE, {}, What.NOTHING),  # deleted on purpose
        (OLD, DONE, {FIRST_PAGE: OTHER}, What.NOTHING),
        (NEW, DONE, THERE, What.PLACE),  # an update
        (NEW, DONE, {**THERE, "mine.html": OTHER}, What.PLACE),  # additions do no harm
        (NEW, DONE, {**THERE, "app.js": OTHER}, What.LEAVE),
        (NEW, DONE, {**THERE, LIST_NAME: OTHER}, What.LEAVE),
        (NEW, DONE, without(THERE, "app.js"), What.LEAVE),
        (NEW, DONE, {}, What.LEAVE),
        (NEW, DONE, {**THERE, "new.js": OTHER}, What.LEAVE),  # where a new file would go
        (NEW, DONE, {**THERE, "new.js": hashes_of(NEW)["new.js"]}, What.PLACE),
        (NEW, HALF, HALF_THERE, What.PLACE),  # a power cut in the middle
        (NEW, HALF, THERE, What.PLACE),
        (NEW, HALF, {}, What.PLACE),
        (NEW, HALF, {**HALF_THERE, "app.js": OTHER}, What.LEAVE),
        (OLD, HALF, HALF_THERE, What.PLACE),  # and then it goes back
        (NEW, replace(DONE, offered=NEW.id), THERE, What.NOTHING),  # a person chose the other one
    ],
)
def test_what_is_done_by_itself(wanted: AppList, last: Placed | None, present: dict[str, str], what: What):
    found = decide(wanted, last, present, safe_mode=False, root_is_default=True)
    assert (found.what, bool(found.why)) == (what, True)
    assert decide(wanted, last, present, safe_mode=True, root_is_default=True).what is What.NOTHING
    elsewhere = decide(wanted, last, present, safe_mode=False, root_is_default=False).what
    assert elsewhere is (What.NOTHING if what is What.NOTHING else What.LEAVE)


def test_whose_files_stop_it_is_told():
    changed = dict.fromkeys(THERE, OTHER)
    found = decide(NEW, DONE, changed, safe_mode=False, root_is_default=True)
    assert found == Decision(What.LEAVE, "the owner has changed app.js, index.html, old.js and 1 more")


def test_only_what_nobody_has_changed_goes():
    assert gone(HALF, THERE) == ["old.js"]
    assert gone(HALF, {**THERE, "old.js": OTHER}) == []
    assert gone(HALF, {}) == []
    assert gone(ended(HALF), THERE) == []


def test_a_record_of_a_second_try_knows_both_of_before():
    again = begun(OLD, OLD.id, HALF)
    assert {"old.js", "new.js"} <= set(again.before)
    assert parse_placed(again.to_bytes()) == again


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"null", b"[" * 50_000, b"x" * 300_000,
        DONE.to_bytes().replace(b"index.html", b"../x"),
        DONE.to_bytes().replace(b'"done": true', b'"done": 1'),
        DONE.to_bytes().replace(OLD.id.encode(), b"short"),
        DONE.to_bytes().replace(b'"offered": "', b'"offered": null, "x": "'),
        DONE.to_bytes().replace(b'"before": {}', b'"before": []'),
    ],
)  # fmt: skip
def test_a_record_that_is_none(raw: bytes):
    assert parse_placed(raw) is None
    assert parse_placed(DONE.to_bytes()) == DONE


def test_a_list_says_what_it_was_made_of():
    assert parse_list(NEW.to_bytes()) == NEW
    assert NEW.id != OLD.id
    assert NEW.id != replace(NEW, version="1.2.0").id
    for version in ('"', "x" * 33, "a b"):
        with pytest.raises(WebAppListError):
            parse_list(replace(NEW, version=version).to_bytes())
    for name in ("../x", ".hidden", LIST_NAME, "a//b"):
        with pytest.raises(WebAppListError, match="no name"):
            list_of("1.0.0", {name: b""})
    with pytest.raises(WebAppListError, match="more than 256 files"):
        list_of("1.0.0", {f"f{number}": b"" for number in range(257)})
