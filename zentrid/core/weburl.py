"""Addresses of files on web servers: what is accepted, what a person is shown of it, and where a redirect may lead. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from zentrid.errors import ZentriError

MAX_URL_CHARS: Final = 1500
MAX_REDIRECTS: Final = 3
PORTS: Final = {"http": 80, "https": 443}
_PLAIN = re.compile(r"[!-~]+", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}", re.ASCII)
_NUMBER_OR_HERE = re.compile(r"[0-9]+|0x[0-9a-f]*|localhost", re.ASCII)
_SECRET = re.compile(r"(?<=://)[^/\s]*@|\?\S*", re.ASCII)


class UrlError(ZentriError, ValueError):
    """An address that is not used; the sentence says why and what to do."""

    reason = "bad_url"


@dataclass(frozen=True)
class WebUrl:
    """One address, taken apart. `str()` is what may be shown: without user, password and query."""

    scheme: str
    host: str
    port: int
    path: str
    """What the server is asked for: path and query."""
    credentials: str = ""
    """`user:password`, or empty."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom credentials may be sent to."""
        return self.scheme, self.host, self.port

    @property
    def authorization(self) -> dict[str, str]:
        """The header that credentials are sent in, in UTF-8; nothing if there are none."""
        if not self.credentials:
            return {}
        return {"Authorization": "Basic " + b64encode(self.credentials.encode()).decode("ascii")}

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        path, query, _ = self.path.partition("?")
        return f"{self.scheme}://{host}{port}{path}{'?…' if query else ''}"

    def redirected(self, location: str) -> WebUrl:
        """Return where a redirect leads. Credentials go along only to the same server; its own are left out.

        It never leads to the asking machine itself or to its link, unless that is where it comes from: those listen to
        the device, and another server must not speak to them in its name. Raises UrlError.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        try:
            joined = urljoin(f"{self.scheme}://{host}:{self.port}{self.path}", location)
        except ValueError:
            raise UrlError("the address that it leads to cannot be understood; use the page's own address") from None
        there = parse_url(joined)
        if there.host != self.host and _is_inside(there.host):
            raise UrlError("the address that it leads to is the device itself or its link; use the page's own address")
        kept = self.credentials if there.origin == self.origin else ""
        return WebUrl(there.scheme, there.host, there.port, there.path, kept)


def _is_inside(host: str) -> bool:
    """Tell whether a host is the asking machine itself or on its link, or a number written in a way that could be."""
    name = host.rstrip(".").lower()
    try:
        address: IPv4Address | IPv6Address = ip_address(name)
    except ValueError:
        # Resolvers take 127.1, 0x7f000001 and 2130706433 for addresses.
        return _NUMBER_OR_HERE.fullmatch(name.rpartition(".")[2]) is not None
    address = (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
    return address.is_loopback or address.is_link_local or address.is_unspecified


def is_url(text: str) -> bool:
    """Tell whether a person means an address rather than a file's path."""
    return "://" in text


def hide_secrets(text: str) -> str:
    """Return text without what may be secret in the addresses that it holds: user, password, query."""
    return _SECRET.sub("", text) if is_url(text) else text


def parse_url(text: str) -> WebUrl:
    """Return the address in its parts. Raises UrlError, whose sentence never holds a secret."""
    if len(text) > MAX_URL_CHARS:
        raise UrlError(f"the address is longer than {MAX_URL_CHARS} characters; use a shorter one")
    if not _PLAIN.fullmatch(text) or "\\" in text:
        raise UrlError("the address holds a character that no address has; write it percent-encoded (%20 for a blank)")
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        raise UrlError("the address cannot be understood; it should look like http://server:8000/release.zb") from None
    if parts.scheme not in PORTS:
        raise UrlError("only addresses that begin with http:// or https:// can be used")
    if not _HOST.fullmatch(host) or port == 0:
        raise UrlError("the address names no server that could be asked; it should look like http://server/release.zb")
    query = f"?{parts.query}" if parts.query else ""
    credentials, at, _ = parts.netloc.rpartition("@")
    return WebUrl(
        parts.scheme, host, port or PORTS[parts.scheme], (parts.path or "/") + query, unquote(credentials) if at else ""
    )
