"""The device door lets in certificates of this fleet's device CA and nothing else; refusals happen before any HTTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from cryptography import x509
from sqlalchemy import func, select

from dms_server.devices.models import Device
from dms_server.testing import device_tls
from scripts.provision_tool import pki
from scripts.provision_tool.device import load_authority
from tests.server.helpers import Dms, ask

REFUSED = (aiohttp.ClientError, ConnectionError, ssl.SSLError)


def _write(folder: Path, certificate: x509.Certificate, key: object) -> tuple[Path, Path]:
    folder.mkdir()
    (folder / "c.crt").write_bytes(pki.certificate_pem(certificate))
    (folder / "c.key").write_bytes(pki.key_pem(key))  # type: ignore[arg-type]
    return folder / "c.crt", folder / "c.key"


def _self_signed(_: pki.Authority) -> tuple[x509.Certificate, object]:
    authority = pki.new_authority(str(uuid4()))
    return authority.certificate, authority.key


def _other_ca(_: pki.Authority) -> tuple[x509.Certificate, object]:
    key = pki.new_key()
    return pki.device_certificate(pki.new_authority("Zentri device CA"), str(uuid4()), key.public_key()), key


def _expired(authority: pki.Authority) -> tuple[x509.Certificate, object]:
    key = pki.new_key()
    return pki.device_certificate(authority, str(uuid4()), key.public_key(), days=-1), key


def _server_purpose(authority: pki.Authority) -> tuple[x509.Certificate, object]:
    key = pki.new_key()
    return pki.server_certificate(authority, key.public_key()), key


@pytest.mark.parametrize("make", [_self_signed, _other_ca, _expired, _server_purpose])
async def test_wrong_certificate_is_refused_by_tls(
    dms: Dms, fleet: Path, tmp_path: Path, make: Callable[[pki.Authority], tuple[x509.Certificate, object]]
) -> None:
    certificate, key = make(load_authority(fleet, "device_ca"))
    tls = device_tls(
        dms.identities[0], certificate=(pair := _write(tmp_path / "wrong", certificate, key))[0], key=pair[1]
    )
    with pytest.raises(REFUSED):
        await ask(dms.session, "GET", f"{dms.device_url}/device/v1/metadata/timestamp.json", ssl=tls)
    await _nobody_was_here(dms)


async def test_no_certificate_is_refused_by_tls(dms: Dms) -> None:
    tls = ssl.create_default_context(cafile=str(dms.identities[0] / "dms_ca.crt"))
    with pytest.raises(REFUSED):
        await ask(dms.session, "GET", f"{dms.device_url}/device/v1/metadata/timestamp.json", ssl=tls)
    await _nobody_was_here(dms)


async def test_older_tls_is_refused(dms: Dms) -> None:
    tls = device_tls(dms.identities[0])
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(REFUSED):
        await ask(dms.session, "GET", f"{dms.device_url}/device/v1/metadata/timestamp.json", ssl=tls)


async def test_a_certificate_of_the_device_ca_that_names_no_device_is_refused(
    dms: Dms, fleet: Path, tmp_path: Path
) -> None:
    authority, key = load_authority(fleet, "device_ca"), pki.new_key()
    certificate = pki.device_certificate(authority, "not-a-uuid", key.public_key())
    tls = device_tls(
        dms.identities[0], certificate=(pair := _write(tmp_path / "odd", certificate, key))[0], key=pair[1]
    )
    answer = await ask(dms.session, "GET", f"{dms.device_url}/device/v1/metadata/timestamp.json", ssl=tls)
    assert answer.status == 403
    await _nobody_was_here(dms)


async def test_plain_http_is_refused(dms: Dms) -> None:
    with pytest.raises(REFUSED):
        await ask(dms.session, "GET", dms.device_url.replace("https", "http") + "/device/v1/metadata/timestamp.json")


async def test_the_server_certificate_is_checked_by_the_device(dms: Dms, tmp_path: Path) -> None:
    """The device's side of it: a server with a certificate of another CA is not talked to."""
    other = tmp_path / "ca.crt"
    other.write_bytes(pki.certificate_pem(pki.new_authority("Zentri DMS CA").certificate))
    tls = ssl.create_default_context(cafile=str(other))
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await ask(dms.session, "GET", f"{dms.device_url}/device/v1/metadata/timestamp.json", ssl=tls)


async def test_device_certificate_outlives_the_device(fleet: Path, identities: list[Path]) -> None:
    certificate = x509.load_pem_x509_certificate((identities[0] / "device.crt").read_bytes())
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=20 * 365)
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(hours=23)


async def test_same_device_at_two_addresses_raises_an_alarm(dms: Dms) -> None:
    device = dms.device()
    await device.get("status")
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=connector) as elsewhere:
        url = f"{dms.device_url}/device/v1/status"
        assert (await ask(elsewhere, "GET", url, ssl=device_tls(device.identity))).status == 200
    async with dms.core.db.read() as session:
        alarm = await session.scalar(select(Device.alarm).where(Device.uuid == device.uuid))
    assert alarm is not None
    assert "127.0.0.1" in alarm
    assert "127.0.0.2" in alarm


async def test_two_devices_at_two_addresses_are_no_alarm(dms: Dms) -> None:
    await dms.device(0).get("status")
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=connector) as elsewhere:
        url = f"{dms.device_url}/device/v1/status"
        assert (await ask(elsewhere, "GET", url, ssl=device_tls(dms.identities[1]))).status == 200
    async with dms.core.db.read() as session:
        assert await session.scalars(select(Device.alarm)) == [None, None]


async def _nobody_was_here(dms: Dms) -> None:
    await asyncio.sleep(0.05)
    async with dms.core.db.read() as session:
        assert await session.scalar(select(func.count()).select_from(Device)) == 0
