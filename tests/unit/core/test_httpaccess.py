"""Who may come in by HTTP: addresses, names, pages, the account, limits."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.account import Account, basic_credentials
from zentrid.core.httpaccess import (
    connected_networks,
    guesser_of,
    host_name,
    is_itself,
    is_near,
    is_own_name,
    own_addresses,
    refused_page,
    source_of,
)
from zentrid.core.lockout import (
    BURST,
    FORGET_S,
    FREE_OF_ALL,
    FREE_TRIES,
    FREE_WIDER,
    LONGEST_LOCK_S,
    MAX_SOURCES,
    REQUESTS_S,
    Guesser,
    Limits,
)

ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0202000A	0003	0	0	0	00000000	0	0	0
eth0	0002000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth0	000010AC	0102000A	0003	0	0	0	0000FFFF	0	0	0
eth0	garbage
"""
ADDRESSES6 = """fd000000000000005054000000000001 02 40 00 00     eth0
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000505400fffe000001 02 40 20 80     eth0
short line
"""


def test_the_devices_own_networks_are_those_without_a_gateway():
    networks = connected_networks(ROUTES, ADDRESSES6)
    assert ip_network("10.0.2.0/24") in networks
    assert ip_network("fd00::/64") in networks
    assert ip_network("172.16.0.0/16") not in networks
    assert ip_network("0.0.0.0/0") not in networks
    assert connected_networks("", "") == ()
    # A route to everywhere that needs no gateway (a point-to-point link) makes nobody a neighbour.
    assert connected_networks(ROUTES.replace("0202000A\t0003", "00000000\t0001"), "") == (ip_network("10.0.2.0/24"),)
    for near in ("10.0.2.2", "::ffff:10.0.2.2", "169.254.9.9", "fe80::7%eth0", "fd00::9"):
        assert is_near(near, networks), near
    for far in (
        "10.0.3.2",
        "172.16.0.1",
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "2001:db8::1",
        "fd01::1",
        "127.0.0.1",
        "",
        "nonsense",
    ):
        assert not is_near(far, networks), far


TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.2.0/24 2 0 2
        |-- 10.0.2.0
           /24 link UNICAST
        |-- 10.0.2.15
           /32 host LOCAL
        |-- 10.0.2.255
           /32 link BROADCAST
"""


def test_the_device_itself_is_no_neighbour():
    own = own_addresses(TRIE, ADDRESSES6)
    for itself in (
        "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.0.2.15", "::ffff:10.0.2.15",
        "fd00::5054:0:0:1", "fe80::5054:ff:fe00:1%eth0",
    ):  # fmt: skip
        assert is_itself(itself, "192.168.7.7", own), itself
    # What the tables do not tell yet is known by the connection: both ends are the same.
    assert is_itself("::ffff:192.168.7.7", "192.168.7.7")
    for other in ("10.0.2.2", "10.0.2.255", "fd00::9", "fe80::7%eth0", "", "nonsense"):
        assert not is_itself(other, "10.0.2.15", own), other


@given(st.text(), st.text())
def test_no_table_of_the_kernel_raises(table: str, addresses: str):
    connected_networks(table, addresses)
    own_addresses(table, addresses)


def test_sources():
    assert source_of("::ffff:1.2.3.4") == source_of("1.2.3.4") == "1.2.3.4"
    assert source_of("2001:db8:0:1::5%eth0") == source_of("2001:db8:0:1:ffff::") != source_of("2001:db8:0:2::5")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Boiler.Example.COM.", "boiler.example.com"), ("a:80", "a"), ("[::1]:80", "::1"), ("", None), ("a:b", None),
        ("a/b", None), ("a@b", None), ("a?b", None), ("a#b", None), ("[::1", None), ("a:99999", None),
    ],
)  # fmt: skip
def test_names_in_a_host_header(header: str, name: str | None):
    assert host_name(header) == name


@given(st.text())
def test_no_host_header_raises(header: str):
    is_own_name(header, ())


def test_own_names():
    assert is_own_name("10.0.2.15:80", ())
    assert is_own_name("LOCALHOST", ())
    assert is_own_name("Boiler.example.com", ("boiler.example.com",))
    for foreign in ("evil.example", "boiler.example.com.evil.example", "10.0.2.15.nip.io", "0x7f.1", "127.1"):
        assert not is_own_name(foreign, ("boiler.example.com",)), foreign


def test_pages():
    own = {"Host": "10.0.2.15", "User-Agent": "Mozilla/5.0"}
    assert refused_page({"Host": "10.0.2.15", "User-Agent": "curl/8"}, secure=False) is None
    assert refused_page(own, secure=False)
    assert refused_page(own | {"Origin": "https://10.0.2.15"}, secure=False)
    assert refused_page(own | {"Origin": "https://10.0.2.15"}, secure=True) is None
    assert refused_page(own | {"Origin": "http://10.0.2.15:81"}, secure=False)
    assert refused_page(own | {"Origin": "null"}, secure=False, origins=("https://a.example",))
    assert refused_page(own | {"Origin": "https://a.example"}, secure=False, origins=("https://a.example",)) is None
    # One proof is not undone by another that is missing, but an Origin that is wrong outweighs all.
    assert refused_page(own | {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, secure=False)
    # Node's own client sends Sec-Fetch headers of no meaning.
    assert (
        refused_page({"Host": "10.0.2.15", "User-Agent": "node", "Sec-Fetch-Site": "cross-site"}, secure=False) is None
    )
    # A page is no less foreign because its browser does not say that it is one.
    agent = {"Host": "10.0.2.15", "User-Agent": "Odd/1"}
    for foreign in ("http://evil.example/", "http://[", "https://10.0.2.15/"):
        assert refused_page(agent | {"Referer": foreign}, secure=False), foreign
    assert refused_page(agent | {"Referer": "http://10.0.2.15/x"}, secure=False) is None
    for site in ("cross-site", "same-site", "none"):
        assert refused_page(agent | {"Sec-Fetch-Site": site}, secure=False), site


def test_the_account():
    account = Account("admin", "ge:heim")
    assert account.admits("admin", "ge:heim")
    for name, word in (("admin", "ge:hei"), ("Admin", "ge:heim"), ("", ""), ("admin", ""), ("admin", "\ud800")):
        assert not account.admits(name, word)
    assert not Account("", "x").admits("", "x")
    assert not Account("x", "").admits("x", "")
    assert basic_credentials("Basic YWRtaW46Z2U6aGVpbQ==") == ("admin", "ge:heim")
    assert basic_credentials("basic  YWRtaW46Z2U6aGVpbQ== ") == ("admin", "ge:heim")
    for header in ("", "Basic", "Basic !", "Digest YTpi", "Basic YWRtaW4=", "Basic /w==", "Basic " + "YTpi" * 200):
        assert basic_credentials(header) is None


A = Guesser("a")


# --- limits -------------------------------------------------------------------------------------------------------------
def test_wrong_passwords_cost_ever_more_time():
    limits = Limits()
    now_s, waits = 1000.0, []
    for _ in range(FREE_TRIES + 6):
        limits.wrong(A, now_s)
        waits.append(limits.locked_s(A, now_s))
        now_s += limits.locked_s(A, now_s) + 0.1
    assert waits[: FREE_TRIES - 1] == [0] * (FREE_TRIES - 1)
    assert waits[FREE_TRIES - 1 :] == [30, 60, 120, 240, 480, LONGEST_LOCK_S, LONGEST_LOCK_S]
    assert limits.locked_s(Guesser("b"), now_s) == 0
    assert not limits.quiet(now_s)
    assert limits.quiet(now_s + FORGET_S)
    limits.wrong(A, now_s + FORGET_S)
    assert limits.locked_s(A, now_s + FORGET_S) == 0
    assert not limits.quiet(now_s + FORGET_S)


def test_requests_that_are_too_many():
    limits = Limits()
    assert [limits.too_many("a", 5.0) for _ in range(int(BURST) + 2)] == [False] * int(BURST) + [True] * 2
    assert not limits.too_many("b", 5.0)
    assert not limits.too_many("a", 5.02)
    assert abs([limits.too_many("a", 6.0) for _ in range(int(BURST))].count(False) - (REQUESTS_S - 1)) <= 1
    assert not limits.too_many("a", 1e9)


def test_many_sources_take_bounded_room_and_do_not_wash_a_guesser_away():
    limits = Limits()
    for _ in range(FREE_TRIES):
        limits.wrong(Guesser("guesser"), 1.0)
    for number in range(MAX_SOURCES * 3):
        limits.too_many(f"s{number}", 2.0)
    assert len(limits._sources) == MAX_SOURCES
    assert limits.locked_s(Guesser("guesser"), 3.0) > 0


def test_many_guessers_together_are_slow_and_do_not_keep_the_owner_out():
    limits, now_s, judged = Limits(), 1.0, 0
    limits.right(Guesser("owner"), now_s)
    for number in range(MAX_SOURCES * 40):
        guesser = Guesser(f"s{number % (MAX_SOURCES * 2)}")
        if not limits.locked_s(guesser, now_s):
            limits.wrong(guesser, now_s)
            judged += 1
        now_s += 0.01
    assert judged <= FREE_OF_ALL + (now_s - 1) + 1
    assert not limits.quiet(now_s)
    assert limits.locked_s(Guesser("s0"), now_s) > 0
    assert limits.locked_s(Guesser("owner"), now_s) == 0
    assert limits.locked_s(Guesser("neighbour", near=True), now_s) == 0


def test_whose_guess_it_is():
    networks = (ip_network("10.0.2.0/24"), ip_network("fd00::/64"))
    assert guesser_of("::ffff:8.8.8.8", networks) == Guesser("8.8.8.8")
    assert guesser_of("2001:db8:0:1::5", networks) == Guesser("2001:db8:0:1::/64", "2001:db8::/48")
    # A neighbour that guesses locks itself out, not its network.
    assert guesser_of("fd00::5", networks) == Guesser("fd00::5", near=True)
    assert guesser_of("10.0.2.9", networks) == Guesser("10.0.2.9", near=True)
    limits = Limits()
    for number in range(FREE_WIDER):
        limits.wrong(guesser_of(f"2001:db8:0:{number:x}::1", networks), 1.0)
    assert limits.locked_s(guesser_of("2001:db8:0:ffff::1", networks), 1.0) > 0
    assert limits.locked_s(guesser_of("2001:db8:1::1", networks), 1.0) == 0
