"""Addresses: what is taken, what is shown, where a redirect may lead."""

from contextlib import suppress

import pytest

from zentrid.core.weburl import UrlError, hide_secrets, is_url, parse_url


def test_the_parts():
    url = parse_url("https://me:pa%40ss@files.example.com:8443/r/new.zb?key=1#top")
    assert url.origin == ("https", "files.example.com", 8443)
    assert (url.path, url.credentials) == ("/r/new.zb?key=1", "me:pa@ss")
    assert parse_url("http://[::1]").origin == ("http", "::1", 80)
    assert parse_url("http://h").path == "/"


def test_every_password_can_be_sent():
    assert parse_url("http://me:p%C3%A4%E2%82%AC@h/").authorization == {"Authorization": "Basic bWU6cMOk4oKs"}
    assert parse_url("http://h/").authorization == {}


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


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "127.9.9.9", "0", "0.0.0.0", "2130706433", "0x7f.1", "0x7f000001", "localhost", "a.localhost.",
        "LOCALHOST", "[::1]", "[::]", "[::ffff:127.0.0.1]", "169.254.1.1", "[fe80::1]", "127.0.0.1.",
    ],
)  # fmt: skip
def test_no_other_server_leads_to_the_device_itself(host: str):
    for at in ("http://server/", "https://192.168.1.5/a", "http://[fd00::1]/"):
        with pytest.raises(UrlError, match=r"itself|no server"):
            parse_url(at).redirected(f"http://{host}/command/reboot")
    with suppress(UrlError):  # some are no address in any place
        here = parse_url(f"http://{host}:8000/a")
        assert str(here.redirected(f"http://{host}/b")).endswith("/b")


@pytest.mark.parametrize("host", ["192.168.1.6", "10.0.2.2", "[fd00::2]", "host1", "3d.example", "localhost.example"])
def test_other_servers_may_be_led_to(host: str):
    assert str(parse_url("http://server/").redirected(f"http://{host}/b")) == f"http://{host}/b"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://h/", "", "http://h:x/", "http://[::1", "//["])
def test_redirects_that_lead_nowhere(location: str):
    if location:
        with pytest.raises(UrlError):
            parse_url("http://h/").redirected(location)
    assert not is_url("/data/new.zb")
