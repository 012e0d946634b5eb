"""The server as a process: command line, restart, kill, what it needs at start, and the signatures that must not go old."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import urllib3
from tuf.api.metadata import Metadata, Snapshot, Timestamp  # type: ignore[attr-defined]

from dms_server.errors import SetupError
from dms_server.settings import load_settings
from dms_server.testing import ROOT, RunningDms
from scripts.provision_tool.fleet import make_fleet
from tests.server.client import Client
from tests.server.conftest import StartDms
from tests.server.helpers import PRODUCT, ask
from tests.server.making import Publisher


def test_restart_and_kill_keep_everything(running: RunningDms, fleet: Path, identities: list[Path]) -> None:
    ports = running.device_port, running.web_port
    with Client(running, identities[0]) as client:
        demo = running.demo
        assert client.post("claim", user=demo["user"], password=demo["password"])["result"] == "ok"
        assert client.post("activate", product=PRODUCT)["result"] == "ok"
        assert client.api("POST", "bundles", body=Publisher(fleet, PRODUCT).make("1.1.0"))["result"] == "ok"
        client.api("POST", f"bundles/{PRODUCT}/1.1.0/tag", json={"tag": "release"})
        report = {"id": str(uuid4()), "time": "2026-01-01T00:00:00Z", "event": "installed", "version": "1.0.0"}
        client.post("report", **report)
    running.kill()
    running.start()
    assert (running.device_port, running.web_port) == ports
    with Client(running, identities[0]) as client:
        assert client.post("check", version="1.0.0")["update"]["version"] == "1.1.0"
        assert client.post("report", **report)["message"] == "report was here before"
        assert len(client.api("GET", f"devices/{client.uuid}/reports")["reports"]) == 1
    running.restart()
    with Client(running, identities[0]) as client:
        assert client.post("check", version="1.0.0")["update"]["version"] == "1.1.0"
        assert client.api("GET", f"bundles/{PRODUCT}/1.1.0")["tags"] == ["release"]


def test_kill_in_the_middle_of_reports_loses_no_acknowledged_one(running: RunningDms, identities: list[Path]) -> None:
    acknowledged = []
    with Client(running, identities[0]) as client:
        demo = running.demo
        client.post("claim", user=demo["user"], password=demo["password"])
        for _ in range(20):
            key = str(uuid4())
            if client.post("report", id=key, time="", event="boot")["result"] == "ok":
                acknowledged.append(key)
    running.kill()
    running.start()
    with Client(running, identities[0]) as client:
        kept = {entry["id"] for entry in client.api("GET", f"devices/{client.uuid}/reports")["reports"]}
    assert kept == set(acknowledged)


def test_stop_is_clean_and_removes_the_ports_file(running: RunningDms) -> None:
    assert running.stop() == 0
    assert not (running.data / "ports.json").exists()
    assert "Traceback" not in running.log
    assert "Warning" not in running.log


def test_a_stop_while_it_starts_is_clean(tmp_path: Path, fleet: Path) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-m", "dms_server", "serve", "--data", str(data), "--fleet", str(fleet)]
    command += ["--device-port", "0", "--web-port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + 30
            while not (data / "lock").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            process.terminate()
            said, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, said.decode()
    assert not (data / "ports.json").exists()


def test_refused_handshakes_are_logged(running: RunningDms, fleet: Path) -> None:
    pool = urllib3.PoolManager(ca_certs=str(fleet / "public" / "dms_ca.crt"), retries=False)
    with pytest.raises((urllib3.exceptions.HTTPError, OSError)):
        pool.request("GET", f"{running.device_url}/device/v1/status")
    pool.clear()
    deadline = time.monotonic() + 5
    while "device_refused" not in running.log and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "device_refused" in running.log
    assert "Traceback" not in running.log


def test_two_servers_on_one_folder_are_refused(running: RunningDms) -> None:
    second = _cli("serve", "--data", str(running.data), "--fleet", str(running.fleet), "--web-port", "0")
    assert second.returncode == 1
    assert "another server uses" in second.stderr


def test_secrets_are_for_the_owner_only(running: RunningDms) -> None:
    assert stat.S_IMODE(running.data.stat().st_mode) == 0o700
    assert stat.S_IMODE((running.data / "demo.json").stat().st_mode) == 0o600
    assert set(running.demo) == {"user", "password", "token", "product"}
    assert running.demo["password"] not in running.log
    assert running.token not in running.log


def test_demo_again_keeps_the_account(running: RunningDms) -> None:
    before = running.demo
    assert _cli("demo", "--data", str(running.data), "--fleet", str(running.fleet)).returncode == 0
    assert running.demo == before


def test_user_add_and_migrate(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    assert _cli("migrate", "--data", data).returncode == 0
    command = ("user", "add", "ann", "--data", data, "--email", "ann@example.org")
    assert _cli(*command, text="short\n").returncode == 1
    assert _cli(*command, text="a good long password\n").returncode == 0
    again = _cli(*command, text="a good long password\n")
    assert again.returncode == 1
    assert "has an account already" in again.stderr


def test_a_data_folder_that_cannot_be_used_is_told_in_one_sentence(tmp_path: Path, fleet: Path) -> None:
    file, garbage = tmp_path / "file", tmp_path / "garbage"
    file.write_text("no folder")
    garbage.mkdir()
    (garbage / "dms.sqlite3").write_text("this is no database\n" * 100)
    for data, sentence in ((file, str(file)), (garbage, "the database cannot be used (file is not a database)")):
        for words in (("serve", "--web-port", "0", "--device-port", "0", "--fleet", str(fleet)), ("migrate",)):
            done = _cli(*words, "--data", str(data))
            assert done.returncode == 1
            assert sentence in done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_fleet_that_is_not_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    done = _cli("serve", "--data", str(tmp_path / "data"), "--fleet", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.startswith("dms_server: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_programs_get_json(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    assert json.loads(_cli("migrate", "--data", data, "--json").stdout) == {"result": "ok"}
    command = ("user", "add", "ann", "--data", data, "--email", "ann@example.org", "--json")
    refused = _cli(*command, text="short\n")
    assert (refused.returncode, json.loads(refused.stdout)["result"]) == (1, "fail")
    assert json.loads(_cli(*command, text="a good long password\n").stdout) == {"result": "ok", "user": "ann"}


def _cli(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dms_server", *arguments]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=60, check=False)


# --- settings -----------------------------------------------------------------------------------------------------------
def test_settings_file_environment_and_options(tmp_path: Path) -> None:
    file = tmp_path / "dms.toml"
    file.write_text('web_port = 1\ndevice_port = 2\nbind = "0.0.0.0"\n')
    required = {"data": tmp_path, "fleet": tmp_path}
    made = load_settings({**required, "web_port": 3}, file=file, environment={"ZENTRI_DMS_DEVICE_PORT": "4"})
    assert (made.web_port, made.device_port, made.bind) == (3, 4, "0.0.0.0")


@pytest.mark.parametrize("text", ["web_port = 99999", "unknown = 1", "web_port = ", "signup_open = 'perhaps'"])
def test_bad_settings_are_refused_and_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "dms.toml"
    file.write_text(text)
    with pytest.raises(SetupError) as caught:
        load_settings({"data": tmp_path, "fleet": tmp_path}, file=file, environment={})
    assert text.split(" ")[0] in str(caught.value) or str(file) in str(caught.value)


# --- start --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "missing",
    ["public/1.root.json", "public/targets.json", "online/timestamp.key", "online/dms.crt", "public/device_ca.crt"],
)
async def test_a_fleet_that_lacks_a_file_is_named(start_dms: StartDms, tmp_path: Path, missing: str) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    (fleet / missing).unlink()
    with pytest.raises(SetupError, match="scripts/provision fleet"):
        await start_dms(fleet=fleet)


async def test_a_key_that_root_does_not_name_is_refused(start_dms: StartDms, tmp_path: Path) -> None:
    fleet, other = make_fleet(tmp_path / "fleet"), make_fleet(tmp_path / "other")
    shutil.copy(other / "online" / "timestamp.key", fleet / "online" / "timestamp.key")
    with pytest.raises(SetupError, match="not the key that the newest root names"):
        await start_dms(fleet=fleet)


async def test_data_of_another_fleet_is_refused(start_dms: StartDms, tmp_path: Path) -> None:
    dms = await start_dms()
    await asyncio.to_thread(shutil.copytree, dms.settings.data, tmp_path / "copy")
    other = await asyncio.to_thread(make_fleet, tmp_path / "other")
    with pytest.raises(SetupError, match="another fleet"):
        await start_dms(fleet=other, data=tmp_path / "copy")


async def test_the_server_needs_no_offline_key(start_dms: StartDms, tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    shutil.rmtree(fleet / "offline")
    dms = await start_dms(fleet=fleet)
    assert (await ask(dms.session, "GET", f"{dms.web_url}/readyz")).status == 200


# --- signatures ---------------------------------------------------------------------------------------------------------
async def test_timestamp_and_snapshot_are_signed_again_in_time(start_dms: StartDms) -> None:
    dms = await start_dms(timestamp_lifetime_s=2, snapshot_lifetime_s=3, resign_interval_s=0.1)
    folder = dms.settings.data / "tuf" / "metadata"

    def read() -> tuple[int, datetime, int]:
        stamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes()).signed
        number = stamp.snapshot_meta.version
        snapshot = Metadata[Snapshot].from_bytes((folder / f"{number}.snapshot.json").read_bytes()).signed
        assert snapshot.expires > datetime.now(UTC) - timedelta(seconds=0.5)
        return stamp.version, stamp.expires, number

    first = await asyncio.to_thread(read)
    for _ in range(8):
        await asyncio.sleep(0.5)
        stamp_version, expires, snapshot_version = await asyncio.to_thread(read)
        assert expires > datetime.now(UTC)
    assert stamp_version > first[0]
    assert snapshot_version > first[2]


async def test_nothing_is_signed_while_nothing_changes(start_dms: StartDms) -> None:
    dms = await start_dms()
    folder = dms.settings.data / "tuf" / "metadata"
    before = await asyncio.to_thread(lambda: {p.name: p.read_bytes() for p in folder.iterdir()})
    await dms.core.bundles.refresh_metadata()
    assert await asyncio.to_thread(lambda: {p.name: p.read_bytes() for p in folder.iterdir()}) == before


async def test_a_publish_cut_short_is_completed_at_the_next_start(
    start_dms: StartDms, fleet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The row is there and the process dies before snapshot and timestamp are signed."""
    dms = await start_dms()
    owner = await dms.owner()
    metadata = dms.core.bundles._metadata

    def die() -> bool:
        raise OSError("power cut")

    monkeypatch.setattr(metadata, "refresh", die)
    data = Publisher(fleet, PRODUCT).make("1.1.0")
    assert (await owner.api("POST", "bundles", data=data)).status == 500
    monkeypatch.undo()
    copy = tmp_path / "after"
    await asyncio.to_thread(shutil.copytree, dms.settings.data, copy)
    again = await start_dms(data=copy)
    folder = copy / "tuf" / "metadata"
    newest = await asyncio.to_thread(
        lambda: max(folder.glob("*.snapshot.json"), key=lambda p: int(p.name.split(".")[0]))
    )
    assert f"{PRODUCT}.json" in Metadata[Snapshot].from_bytes(newest.read_bytes()).signed.meta
    assert (await again.core.bundles.get(owner.id, PRODUCT, "1.1.0")).bundle.state == "published"


async def test_an_upload_cut_short_can_be_repeated(
    start_dms: StartDms, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are there, the row is not: the same bundle is taken the second time."""
    dms = await start_dms()
    owner = await dms.owner()
    data = Publisher(fleet, PRODUCT).make("1.1.0")

    def die(*_: object, **__: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(dms.core.db, "write", die)
    assert (await owner.api("POST", "bundles", data=data)).status == 500
    monkeypatch.undo()
    assert (await owner.api("POST", "bundles", data=data)).status == 201
