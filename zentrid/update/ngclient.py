"""The Update Framework's client without the network code that comes with it.

`tuf.ngclient` imports `requests` for its default fetcher: three seconds on the board, several megabytes, and an error at import
when the system has no certificate authorities, which this device has none of on purpose. The worker always brings its own
fetcher, so an empty module takes the place of the default one before the client is imported.
"""

from __future__ import annotations

import sys
from types import ModuleType

_DEFAULT_FETCHER = "tuf.ngclient._internal.requests_fetcher"


def _leave_out_default_fetcher() -> None:
    if _DEFAULT_FETCHER not in sys.modules:
        placeholder = ModuleType(_DEFAULT_FETCHER)
        placeholder.RequestsFetcher = type("RequestsFetcher", (), {})  # type: ignore[attr-defined]
        sys.modules[_DEFAULT_FETCHER] = placeholder


_leave_out_default_fetcher()

from tuf.ngclient.config import UpdaterConfig  # noqa: E402
from tuf.ngclient.fetcher import FetcherInterface  # noqa: E402
from tuf.ngclient.updater import Updater  # noqa: E402

__all__ = ["FetcherInterface", "Updater", "UpdaterConfig"]
