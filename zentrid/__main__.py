"""`python3 -m zentrid`: the supervisor daemon."""

from __future__ import annotations

import sys


def run() -> int:
    """Run the supervisor, which speaks no TLS: its worker does. Without OpenSSL it takes 4 MiB less, and knows less."""
    for name in ("ssl", "_hashlib"):
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    from zentrid import dataclasscode

    dataclasscode.use()
    from zentrid.app import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
