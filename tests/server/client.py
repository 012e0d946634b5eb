"""Talks to a server that is a process of its own, as a device and as its owner; without an event loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import urllib3

from dms_server.testing import RunningDms, device_tls


class Client:
    """One device and its owner. A context manager that closes its connections at the end."""

    def __init__(self, dms: RunningDms, identity: Path) -> None:
        self.dms = dms
        self.uuid = json.loads((identity / "identity.json").read_text())["uuid"]
        self.device_pool = urllib3.PoolManager(ssl_context=device_tls(identity), retries=False)
        self.web_pool = urllib3.PoolManager(retries=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.device_pool.clear()
        self.web_pool.clear()

    def post(self, path: str, **body: Any) -> Any:
        """POST as the device; return the answer's JSON."""
        url = f"{self.dms.device_url}/device/v1/{path}"
        return self.device_pool.request("POST", url, json={"uuid": self.uuid, **body}).json()

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        """GET as the device."""
        return self.device_pool.request("GET", f"{self.dms.device_url}/device/v1/{path}")

    def api(self, method: str, path: str, **options: Any) -> Any:
        """Call the API as the owner; return the answer's JSON."""
        headers = {"Authorization": f"Bearer {self.dms.token}"}
        return self.web_pool.request(method, f"{self.dms.web_url}/api/v1/{path}", headers=headers, **options).json()
