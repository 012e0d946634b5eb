"""The list of the Web App's copy in the image."""

import hashlib
from pathlib import Path

import pytest

from scripts.board_driver.boards import VIRT
from scripts.image.release import finish_tree
from scripts.image.run import BuildError
from scripts.image.webapp import WEBAPP, list_webapp
from zentrid.core.webapp import LIST_NAME, parse_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / WEBAPP
    (made / "js").mkdir(parents=True)
    (made / "index.html").write_bytes(b"<h1>app</h1>")
    (made / "js/app.js").write_bytes(b"1")
    return made


def test_it_names_every_file_with_size_and_hash(tmp_path: Path, folder: Path):
    for _ in range(2):  # the list is not in the list
        list_webapp(tmp_path, "1.4.0")
        found = parse_list((folder / LIST_NAME).read_bytes())
    assert found.version == "1.4.0"
    assert {name: entry.size_bytes for name, entry in found.files.items()} == {"index.html": 12, "js/app.js": 1}
    assert found.files["js/app.js"].sha256 == hashlib.sha256(b"1").hexdigest()


def test_an_image_without_a_web_app_has_no_list(tmp_path: Path):
    list_webapp(tmp_path, "1.4.0")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".hidden", "a b.js", "x" * 120, "a/b/c/d/e/f/g/h.js"])
def test_what_no_device_could_hold_stops_the_build(tmp_path: Path, folder: Path, name: str):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(BuildError, match="the Web App"):
        list_webapp(tmp_path, "1.4.0")


def test_a_web_app_without_a_first_page_stops_the_build(tmp_path: Path, folder: Path):
    (folder / "index.html").unlink()
    with pytest.raises(BuildError, match=r"index\.html is missing"):
        list_webapp(tmp_path, "1.4.0")


def test_every_builder_gets_the_list(tmp_path: Path, folder: Path):
    """Whoever has put a tree together finishes it here."""
    root, apps = tmp_path, tmp_path / "apps"
    (root / "etc/zentri").mkdir(parents=True)
    (root / "tmp").mkdir()
    apps.mkdir()
    finish_tree(VIRT, root, apps, production=False)
    assert set(parse_list((folder / LIST_NAME).read_bytes()).files) == {"index.html", "js/app.js"}
