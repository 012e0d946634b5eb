"""Addresses: what is taken, what is shown, where a redirect may lead."""

import pytest

from zentrid.core.weburl import UrlError, hide_secrets, is_url, parse_url


def test_the_parts():
    url = parse_url("https://me:pa%40ss@files.example.com:8443/r/new.zb?key=1#top")
    assert url.origin == ("https", "files.example.com", 8443)
    assert (url.path, url.credentials) == ("/r/new.zb?key=1", "me:pa@ss")
    assert parse_url("http://[::1]").origin == ("http", "::1", 80)
    assert parse_url("http://h").path == "/"


def test_what_is_shown_holds_no_secret():
    assert str(parse_url("https://me:pass@h:8443/a?key=1")) == "https://h:8443/a?…"
    assert str(parse_url("http://[::1]:80/a")) == "http://[::1]/a"
    assert hide_secrets("ota -u http://me:pass@h/a?key=1 -f") == "ota -u http://h/a -f"
    assert hide_secrets("ota -u /data/a@b?c") == "ota -u /data/a@b?c"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://h/a", "http:///a", "http://", "https://h:0/", "http://h:99999/", "http://h:x/", "http://a b/",
        "http://h/\r\nX: y", "http://h/ü", "http://-h/", "http://h\\@g/", "file:///etc/passwd", "http://[::1/",
        "http://h/" + "a" * 2000, "http://h\x00/", "http://h%0a/",
    ],
)  # fmt: skip
def test_what_is_refused(text: str):
    with pytest.raises(UrlError) as caught:
        parse_url(text)
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "there", "credentials"),
    [
        ("/b", "http://h:1/b", "u:p"),
        ("b?x", "http://h:1/a/b?…", "u:p"),
        ("//h:1/c", "http://h:1/c", "u:p"),
        ("http://other/b", "http://other/b", ""),
        ("https://h:1/b", "https://h:1/b", ""),
        ("http://v:w@h:1/b", "http://h:1/b", "u:p"),
        ("http://v:w@other/b", "http://other/b", ""),
    ],
)
def test_redirects_never_carry_a_password_to_another_server(location: str, there: str, credentials: str):
    url = parse_url("http://u:p@h:1/a/x").redirected(location)
    assert (str(url), url.credentials) == (there, credentials)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://h/", "", "http://h:x/"])
def test_redirects_that_lead_nowhere(location: str):
    if location:
        with pytest.raises(UrlError):
            parse_url("http://h/").redirected(location)
    assert not is_url("/data/new.zb")
