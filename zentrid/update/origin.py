"""Where an update comes from: the server, a bundle file, or a bundle on the web."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zentrid.core.weburl import is_url, parse_url
from zentrid.update.files import open_bundle_file


@dataclass(frozen=True)
class Origin:
    """Where an update comes from: a bundle file, open; a bundle on the web; or, with neither, the server."""

    fd: int | None = None
    url: str = ""

    @property
    def online(self) -> bool:
        """Whether it is the server."""
        return self.fd is None and not self.url

    @property
    def fds(self) -> tuple[int, ...]:
        """What the worker must inherit."""
        return () if self.fd is None else (self.fd,)


@contextmanager
def open_origin(source: str | None) -> Iterator[Origin]:
    """Take what a person named: a path, an address, or nothing. Raises UpdateRefusedError or UrlError."""
    if source is not None and is_url(source):
        parse_url(source)
        yield Origin(url=source)
    else:
        with open_bundle_file(source) as fd:
            yield Origin(fd)
