"""The HTTP door's process for tests, which can only come from the loopback: it takes them for another machine nearby."""

import runpy

from zentrid.http import access

for name, answer in (("is_itself", False), ("is_near", True)):
    assert hasattr(access, name)
    setattr(access, name, lambda *_, answer=answer: answer)

if __name__ == "__main__":
    runpy.run_module("zentrid.http", run_name="__main__")
