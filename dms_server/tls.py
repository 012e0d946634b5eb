"""Mutual TLS 1.3 for the device door: who may connect, and which device a connection is."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from dms_server.errors import ForbiddenError, SetupError

log = structlog.get_logger()

UUID_PATTERN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _LoggingSslObject(ssl.SSLObject):
    """Logs why a handshake failed; asyncio itself says so in debug mode only."""

    def do_handshake(self) -> None:
        """Do the handshake as ever; a refused certificate goes to the log."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            log.warning("device_refused", why=getattr(error, "verify_message", "") or error.reason or str(error))
            raise


def device_door_context(fleet: Path) -> ssl.SSLContext:
    """Return the TLS set-up of the device door: TLS 1.3 only, a certificate of the fleet's device CA required.

    Raises SetupError when the fleet folder lacks a file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.sslobject_class = _LoggingSslObject
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(fleet / "online" / "dms.crt", fleet / "online" / "dms.key")
        context.load_verify_locations(fleet / "public" / "device_ca.crt")
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"the certificates in {fleet} cannot be used: {error}; make a fleet with scripts/provision fleet"
        ) from error
    return context


def certificate_uuid(certificate: dict[str, Any] | None) -> str:
    """Return the UUID that a verified peer certificate (as `getpeercert` gives it) is for.

    Its common name and its only URI must name the same UUID; anything else raises ForbiddenError.
    """
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    uris = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI"]
    if len(names) != 1 or not UUID_PATTERN.fullmatch(names[0]) or uris != [f"urn:uuid:{names[0]}"]:
        raise ForbiddenError("this certificate is not a device's; provision the device again")
    return str(UUID(names[0]))
