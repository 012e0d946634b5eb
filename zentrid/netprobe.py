"""`python3 -m zentrid.netprobe`: a short-lived process without rights that meets the network for `ping` and `nslookup`.

`ping <host> <count>` or `resolve <name>`; it tells its news on the standard output, see `core/probes.py`.
"""

from __future__ import annotations

import os
import resource
import secrets
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from zentrid.adapters.rights import become, user_to_become
from zentrid.core.probes import (
    MAX_ADDRESSES,
    MAX_COUNT,
    PING_EVERY_S,
    PING_WAIT_S,
    Failed,
    Found,
    Lost,
    News,
    Reply,
    to_line,
)

USER: Final = "zentri-net"
_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_HEADER: Final = struct.Struct("!BBHHH")
_TOKEN_BYTES: Final = 32
_MAX_PACKET_BYTES: Final = 2048
_LIMITS: Final = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CPU, 10))


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(ident: int, number: int, token: bytes) -> bytes:
    """Return an ICMP echo request."""
    empty = _HEADER.pack(_ECHO_REQUEST, 0, 0, ident, number) + token
    return _HEADER.pack(_ECHO_REQUEST, 0, checksum(empty), ident, number) + token


def is_reply(packet: bytes, ident: int, number: int, token: bytes) -> bool:
    """Tell whether an IPv4 packet is the answer to just this request. Anything may stand in the packet."""
    begin = (packet[0] & 0x0F) * 4 if packet else 0
    message = packet[begin:]
    if begin < 20 or len(message) < _HEADER.size:
        return False
    kind, code, _, its_ident, its_number = _HEADER.unpack_from(message)
    return (kind, code, its_ident, its_number) == (_ECHO_REPLY, 0, ident, number) and message[_HEADER.size :] == token


def addresses(name: str, family: int = socket.AF_UNSPEC) -> list[str]:
    """Return the addresses of a name, by the resolver that updates use. Raises OSError (socket.gaierror)."""
    try:
        found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long for the name system
        raise socket.gaierror(socket.EAI_NONAME, "not a name") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:MAX_ADDRESSES]


def resolving_trouble(name: str, error: OSError) -> Failed:
    """Return a sentence for a name that has no address."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return Failed(f"No name server answers about {name}; check network.dns.")
    return Failed(f"There is no address for {name}; check the name.")


def ping(raw: socket.socket, address: str, count: int) -> Iterator[News]:
    """Send `count` packets one after the other; yield what became of each. Raises OSError."""
    ident = os.getpid() & 0xFFFF
    for number in range(1, count + 1):
        token = secrets.token_bytes(_TOKEN_BYTES)
        begin_s = time.monotonic()
        raw.sendto(echo_request(ident, number, token), (address, 0))
        yield _wait(raw, address, begin_s, ident, number, token)
        if number < count:
            time.sleep(max(0.0, begin_s + PING_EVERY_S - time.monotonic()))


def _wait(raw: socket.socket, address: str, begin_s: float, ident: int, number: int, token: bytes) -> News:
    while (left_s := begin_s + PING_WAIT_S - time.monotonic()) > 0:
        raw.settimeout(left_s)
        with suppress(TimeoutError):
            packet, sender = raw.recvfrom(_MAX_PACKET_BYTES)
            if sender[0] == address and is_reply(packet, ident, number, token):
                return Reply((time.monotonic() - begin_s) * 1000)
    return Lost()


def work(words: list[str], raw: socket.socket | None) -> Iterator[News]:
    """Do what the words say; yield the news of it."""
    name = words[1]
    try:
        if raw is None:
            yield from (Found(address) for address in addresses(name))
            return
        [address, *_] = addresses(name, socket.AF_INET)
        yield Found(address)
    except OSError as error:
        yield resolving_trouble(name, error)
        return
    try:
        yield from ping(raw, address, min(int(words[2]), MAX_COUNT))
    except OSError as error:
        yield Failed(f"There is no way to {name} ({error.strerror}); 'network_verify' looks further.")


def main(words: list[str]) -> int:
    """Take what needs rights, give the rights up, work. Returns the exit status."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) if words[0] == "ping" else None
    except OSError as error:
        _tell(Failed(f"Packets cannot be sent ({error.strerror})."))
        return 1
    for limit, value in _LIMITS:
        resource.setrlimit(limit, (value, value))
    try:
        user = user_to_become(USER)
    except OSError as error:
        _tell(Failed(f"The network probe cannot give up its rights ({error})."))
        return 1
    if user is not None:
        become(user)
    for news in work(words, raw):
        _tell(news)
    return 0


def _tell(news: News) -> None:
    sys.stdout.buffer.write(to_line(news))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
