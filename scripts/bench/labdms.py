"""A Device Management Server for one pair: nothing on it but the pair's two releases, and a counter before its door."""

from __future__ import annotations

import http.client
import shutil
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self

from scripts.bench.boards import BenchBoard, BenchError, configuration_of
from scripts.bench.bundles import PAYLOADS
from scripts.bench.serve import CountingProxy
from scripts.board_driver.chosen import BOARD
from scripts.lab.dms import LabDms
from scripts.lab.places import PRODUCT
from scripts.lab.tools import call
from scripts.lab.world import World
from zentrid.bundle.tree import HashTree

PATCH_TIMEOUT_S: Final = 600.0


class BenchDms:
    """Use as a context manager: it runs inside."""

    def __init__(self, world: World, proxy_port: int, old: Path, new: Path, say: Callable[[str], None]) -> None:
        self._world, self._say = world, say
        self._old, self._new = old, new
        self._proxy_port = proxy_port
        self._dms = LabDms(world.places.dms, world.fleet())

    def __enter__(self) -> Self:
        places = self._world.places
        self._dms.stop()
        for folder in (places.dms, places.metadata, places.bundles):
            shutil.rmtree(folder, ignore_errors=True)
        self._dms.set_up()
        self._dms.start()
        self.proxy = CountingProxy(self._dms.device_port, self._proxy_port)
        self.proxy.__enter__()
        try:
            # The old one has a tag that no new device follows: a pair may lead back to a lower version.
            self._publish(self._old, "alpha")
            self._publish(self._new, "release")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__()
        self._dms.stop()

    def _publish(self, release: Path, tag: str) -> None:
        version = str(configuration_of(release).version)
        bundle = self._world.places.bundles / f"{version}.zb"
        bundle.parent.mkdir(parents=True, exist_ok=True)
        call(
            "scripts.bundle_tool", "build", "--product", PRODUCT, "--version", version, "--compatible", BOARD.name,
            "--kernel", release / PAYLOADS["kernel"], "--rootfs", release / PAYLOADS["rootfs"], "--out", bundle,
            "--allow-downgrade-to", version,  # a pair may lead back, and the old release has raised the floor
        )  # fmt: skip
        self._world.sign(bundle)
        call(
            "scripts.bundle_tool", "publish", bundle, "--server", self._dms.web_url, "--token", self._dms.account["token"],
            "--tag", tag, "--no-symbols",
        )  # fmt: skip

    def own(self, board: BenchBoard) -> None:
        """Make the board the demonstration account's, with its product."""
        account = self._dms.account
        board.send(f"dms claim {account['user']} {account['password']}", shown="dms claim demo (password)")
        board.send(f"dms activate {PRODUCT}")

    def wait_for_patches(self) -> None:
        """Wait until the server has made its patches between the two releases: making them is no part of an installation.

        The board must be the product's. Raises BenchError.
        """
        for file in PAYLOADS.values():
            base, target = (_root_of(release / file) for release in (self._old, self._new))
            if base == target:
                continue
            end = time.monotonic() + PATCH_TIMEOUT_S
            while (status := self._ask(f"/device/v1/payload/{target}?base={base}")) == HTTPStatus.SERVICE_UNAVAILABLE:
                if time.monotonic() > end:
                    raise BenchError(f"the server does not make its patch of {file} in time; see {self._dms.log}")
                time.sleep(1)
            if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise BenchError(f"the server answers {status} when it is asked for {file}; see {self._dms.log}")

    def _ask(self, path: str) -> int:
        """Ask for one byte as the board would, past the counter; return the status."""
        identity = self._world.places.identity
        context = ssl.create_default_context(cafile=str(identity / "dms_ca.crt"))
        context.load_cert_chain(identity / "device.crt", identity / "device.key")
        link = http.client.HTTPSConnection("127.0.0.1", self._dms.device_port, timeout=60, context=context)
        try:
            link.request("GET", path, headers={"Range": "bytes=0-0"})
            return link.getresponse().status
        finally:
            link.close()


def _root_of(payload: Path) -> str:
    with payload.open("rb") as stream:
        return HashTree.from_reader(stream).root.hex()
