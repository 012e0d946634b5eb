"""Certificates: two authorities (for devices, for servers), the server's and each device's.

X.509 v3, EC P-256. Every extension that strict verification asks for is there (RFC 5280, Python's VERIFY_X509_STRICT).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scripts.provision_tool.errors import ProvisionError

CA_DAYS = 30 * 365
SERVER_DAYS = 2 * 365
DEVICE_DAYS = 25 * 365
BACKDATE = timedelta(days=1)
"""Certificates are valid a day before they are made: a device's clock may be a little behind."""

SERVER_NAMES = ("localhost", "dms.zentri.local")
SERVER_ADDRESSES = ("127.0.0.1", "10.0.2.2")


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Authority:
        """Read both from PEM. Raises ProvisionError when they are no pair."""
        found, private = x509.load_pem_x509_certificate(certificate), load_pem_private_key(key, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey) or _spki(private) != found.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        ):
            raise ProvisionError("a CA's certificate and key do not belong together; restore the fleet folder")
        return cls(found, private)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS 8 PEM, not encrypted: the file's mode protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    start = datetime.now(UTC).replace(microsecond=0) - BACKDATE
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + BACKDATE + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def new_authority(common_name: str, days: int = CA_DAYS) -> Authority:
    """Make an authority that may sign certificates of ends, not of other authorities."""
    key = new_key()
    builder = _builder(common_name, _name(common_name), key.public_key(), days)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def _issue(
    authority: Authority,
    subject: str,
    names: list[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    key: ec.EllipticCurvePublicKey,
    days: int,
) -> x509.Certificate:
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(subject, authority.certificate.subject, key, days)
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def server_certificate(
    authority: Authority, key: ec.EllipticCurvePublicKey, extra_hosts: tuple[str, ...] = (), days: int = SERVER_DAYS
) -> x509.Certificate:
    """Return the DMS's certificate for its names and addresses."""
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in SERVER_NAMES]
    names += [x509.IPAddress(IPv4Address(address)) for address in SERVER_ADDRESSES]
    for host in extra_hosts:
        try:
            names.append(x509.IPAddress(IPv4Address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return _issue(authority, "Zentri DMS", names, ExtendedKeyUsageOID.SERVER_AUTH, key, days)


def device_certificate(
    authority: Authority, uuid: str, key: ec.EllipticCurvePublicKey, days: int = DEVICE_DAYS
) -> x509.Certificate:
    """Return a device's certificate: common name is the UUID, and the URI `urn:uuid:<uuid>` says the same."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"urn:uuid:{uuid}")]
    return _issue(authority, uuid, names, ExtendedKeyUsageOID.CLIENT_AUTH, key, days)
