"""TLS for a device whose clock may stand in the past: a server's certificate may begin after it, but must not have ended.

A device without a battery that was off for two years starts at the last time it knows for sure. Its server has a new certificate
since then, and OpenSSL would refuse it as not yet valid: the device could never reach its server again. A certificate from the
future does no harm, as the CA has signed it; only the end matters, since it makes a stolen key worthless one day.
"""

from __future__ import annotations

import ssl
import time
from socket import socket
from typing import Any, Final

_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""`X509_V_FLAG_NO_CHECK_TIME` of OpenSSL, which Python has no name for."""


class EndOnlyContext(ssl.SSLContext):
    """A client's context that looks at the end of the server's certificate alone, not at its beginning."""

    def __new__(cls) -> EndOnlyContext:
        """Make one for TLS clients that checks chain and host name."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made.verify_flags |= _NO_CHECK_TIME
        # Imports what reading a date takes while there are still the rights to read every module.
        ssl.cert_time_to_seconds("Jan  1 00:00:00 2026 GMT")
        return made

    def wrap_socket(self, sock: socket, *args: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401
        """Return the connection; raises SSLCertVerificationError when the server's certificate has ended."""
        wrapped = super().wrap_socket(sock, *args, **options)
        ends = str((wrapped.getpeercert() or {}).get("notAfter", ""))
        now_s = time.time()
        if not ends or ssl.cert_time_to_seconds(ends) < now_s:
            wrapped.close()
            today = time.strftime("%Y-%m-%d", time.gmtime(now_s))
            error = ssl.SSLCertVerificationError(1, "certificate has expired")
            error.verify_message = f"certificate has expired on {ends or '?'}; this device's clock says {today}"
            raise error
        return wrapped
