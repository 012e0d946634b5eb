"""Who may use the HTTP door: pure decisions about addresses, names and origins.

What a browser sends is decided on strictly. A page of another site can make the owner's browser send requests to the
device, with the password that the browser knows; it can also give its own name the device's address (DNS rebinding). It
cannot hide from which page a request comes without leaving the proof out that it comes from the device's own page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from zentrid.core.lockout import Guesser

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_LINK_LOCAL: Final = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"))
_RTF_GATEWAY: Final = 2
_MANY_HOSTS: Final = 8
"""A prefix shorter than this is no network of neighbours, whatever the routes say."""


# --- addresses --------------------------------------------------------------------------------------------------------
def parse_address(text: str) -> Address | None:
    """Return the address without its zone; an IPv4 address that travels as IPv6 is IPv4. None if it is none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def connected_networks(routes: str, addresses6: str) -> tuple[Network, ...]:
    """Return the networks that are reached without a gateway, as /proc/net/route and /proc/net/if_inet6 tell them."""
    found: list[Network] = []
    for line in routes.splitlines()[1:]:
        fields = line.split()
        try:
            target, flags, mask = int(fields[1], 16), int(fields[3], 16), int(fields[7], 16)
            network = IPv4Network((_swapped(target), str(IPv4Address(_swapped(mask)))), strict=False)
        except (IndexError, ValueError):
            continue
        if not flags & _RTF_GATEWAY and network.prefixlen >= _MANY_HOSTS:
            found.append(network)
    for line in addresses6.splitlines():
        fields = line.split()
        try:
            network6 = IPv6Network((int(fields[0], 16), int(fields[2], 16)), strict=False)
        except (IndexError, ValueError):
            continue
        if network6.prefixlen >= _MANY_HOSTS:
            found.append(network6)
    return tuple(found)


def _swapped(number: int) -> int:
    return int.from_bytes(number.to_bytes(4, "little"), "big")


def own_addresses(trie: str, addresses6: str) -> frozenset[Address]:
    """Return the device's own addresses, as /proc/net/fib_trie and /proc/net/if_inet6 tell them."""
    found: set[Address] = set()
    last: Address | None = None
    for line in trie.splitlines():
        mark, _, rest = line.strip().partition(" ")
        if mark == "|--":
            last = parse_address(rest)
        elif last is not None and (mark, rest) == ("/32", "host LOCAL"):
            found.add(last)
    for line in addresses6.splitlines():
        with suppress(IndexError, ValueError):
            found.add(IPv6Address(int(line.split()[0], 16)))
    return frozenset(found)


def is_itself(peer: str, local: str, own: Collection[Address] = ()) -> bool:
    """Tell whether a connection comes from the device itself; `local` is the address at which it came in.

    A program on the device has no more rights than its user. Reaching the door from inside must not give it the owner's.
    """
    address = parse_address(peer)
    if address is None:
        return False
    return address == parse_address(local) or address in own or any(address in network for network in _LOOPBACK)


def is_near(peer: str, networks: Sequence[Network]) -> bool:
    """Tell whether an address is on the same link, or in one of the device's own networks."""
    address = parse_address(peer)
    if address is None:
        return False
    return any(address in network for network in (*_LINK_LOCAL, *networks))


def source_of(peer: str) -> str:
    """Return what counts as one source for limits: an IPv4 address, or an IPv6 network of 64 bits."""
    address = parse_address(peer)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def guesser_of(peer: str, networks: Sequence[Network]) -> Guesser:
    """Return who is locked out for wrong passwords from this address.

    A neighbour that guesses must not lock the owner out who is in the same network: there each address stands for itself.
    From afar whoever has one IPv6 address has 2^64 of them, and often 65,536 networks of that size.
    """
    address = parse_address(peer)
    if is_near(peer, networks):
        return Guesser(str(address), near=True)
    wider = str(IPv6Network((int(address) >> 80 << 80, 48))) if isinstance(address, IPv6Address) else ""
    return Guesser(source_of(peer), wider)


# --- names and pages --------------------------------------------------------------------------------------------------
def host_name(header: str) -> str | None:
    """Return the name in a Host header, lower case, without its port; None if it is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None or not parts.hostname:
        return None
    return parts.hostname.rstrip(".")


def is_own_name(header: str, names: Sequence[str]) -> bool:
    """Tell whether a Host header names this device: by an address, or by a name that was given to it.

    A page that came under another name and now has the device's address (DNS rebinding) shows here.
    """
    name = host_name(header)
    if name is None:
        return False
    return parse_address(name) is not None or name in ("localhost", *(n.lower() for n in names))


class Page(StrEnum):
    """Where a request comes from, as its headers tell; the value ends the name under which its wrong passwords count."""

    OWN = ""
    """The device's own page, or a program."""
    FOREIGN = ", asked for by pages of other sites"
    UNTOLD = ", asked for by a browser without a page"


def refused_page(headers: Mapping[str, str], *, secure: bool, origins: Sequence[str] = ()) -> str | None:
    """Return why a request must not be obeyed because of the page it comes from; None: it may be.

    A browser tells the page by Origin, Sec-Fetch-Site or Referer. One that tells nothing was made not to: a page can
    suppress each of them, but cannot make them name the device. Programs that are no browsers send none of them.
    """
    match page_of(headers, secure=secure, origins=origins):
        case Page.FOREIGN:
            return "a page of another site asked for this; http.server.cors_origin lists the sites that may"
        case Page.UNTOLD:
            return "a browser may ask for this from the device's own pages only; use / or another program"
    return None


def page_of(headers: Mapping[str, str], *, secure: bool, origins: Sequence[str] = ()) -> Page:
    """Return what page a request comes from. What names another site outweighs what names the device."""
    own = f"{'https' if secure else 'http'}://{headers.get('Host', '').lower()}"
    origin = headers.get("Origin")
    if origin is not None:
        return Page.OWN if origin.lower() == own or origin in origins else Page.FOREIGN
    referer = headers.get("Referer", "")
    if referer and _site_of(referer) != own:
        return Page.FOREIGN
    site = headers.get("Sec-Fetch-Site")
    if site is not None and not _is_node(headers):
        return {"same-origin": Page.OWN, "none": Page.UNTOLD}.get(site, Page.FOREIGN)
    return Page.UNTOLD if _is_browser(headers) and not referer else Page.OWN


def _site_of(url: str) -> str:
    try:
        page = urlsplit(url)
    except ValueError:
        return ""
    return f"{page.scheme}://{page.netloc}".lower()


def _is_browser(headers: Mapping[str, str]) -> bool:
    return "mozilla/" in headers.get("User-Agent", "").lower()


def _is_node(headers: Mapping[str, str]) -> bool:
    """Node's own client sends Sec-Fetch headers of no meaning."""
    return headers.get("User-Agent", "").lower().startswith(("node", "undici"))
