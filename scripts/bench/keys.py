"""The benchmark's own keys: a certificate for the server that hands out the others' bundles, and one that signs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scripts.image.run import run
from scripts.provision_tool import pki

SIGNER_DAYS = 3650


@dataclass(frozen=True)
class Keys:
    """The files, below one folder. They sign nothing but what a benchmark installs on a virtual board."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Whom the board trusts for TLS."""
        return self.folder / "tls-ca.pem"

    @property
    def server(self) -> Path:
        """The server's certificate and key in one file."""
        return self.folder / "tls-server.pem"

    @property
    def signer(self) -> Path:
        """The certificate that bundles are signed with; trusted by itself."""
        return self.folder / "signer.pem"

    @property
    def signer_key(self) -> Path:
        """Its key."""
        return self.folder / "signer.key"

    def make(self, log: Path) -> None:
        """Make what is missing."""
        if self.signer.is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = pki.new_authority("Zentri benchmark")
        key = pki.new_key()
        certificate = pki.server_certificate(authority, key.public_key())
        self.authority.write_bytes(pki.certificate_pem(authority.certificate))
        self.server.touch(mode=0o600)
        self.server.write_bytes(pki.certificate_pem(certificate) + pki.key_pem(key))
        run(
            ["openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-subj", "/CN=Zentri benchmark signer",
             "-days", str(SIGNER_DAYS), "-addext", "keyUsage=critical,digitalSignature",
             "-addext", "extendedKeyUsage=emailProtection", "-keyout", self.signer_key, "-out", self.signer],
            log=log, timeout_s=60,
        )  # fmt: skip
