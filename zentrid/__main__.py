"""`python3 -m zentrid`: the supervisor daemon."""

from __future__ import annotations

import sys

from zentrid.app import main

if __name__ == "__main__":
    sys.exit(main())
