"""Certificates for development: a CA of one's own, and a certificate for each role.

A client is known by the URI in its certificate, `taskq:ROLE/NAME`; common names are never looked at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS: Final = ("localhost", "127.0.0.1", "::1")
CLIENTS: Final = ("scheduler", "processor", "admin", "probe")
"""A probe asks for health, which needs no rights: whoever can read its key has come by nothing."""
NAME: Final = "dev"
LIFE: Final = timedelta(days=397)  # as long as browsers take a server's
EARLIER: Final = timedelta(hours=1)
"""Valid from so long ago: clocks differ."""


def make(hosts: Sequence[str] = ()) -> tuple[dict[str, bytes], datetime]:
    """The files by name, and when they end. ValueError for what is no host."""
    names = [_host(host) for host in (*HOSTS, *hosts)]
    now = datetime.now(UTC).replace(microsecond=0)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _authority(ca_key, now)
    files = {"ca.pem": ca.public_bytes(Encoding.PEM), "ca.key": _pem(ca_key)}
    for role in ("server", *CLIENTS):
        is_server = role == "server"
        key = ec.generate_private_key(ec.SECP256R1())
        uri = x509.UniformResourceIdentifier(f"taskq:{role}/{NAME}")
        builder = _begun(f"taskq {role}", ca.subject, key, now)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([*names, uri] if is_server else [uri]), critical=False
        )
        usage = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        files[f"{role}.pem"] = builder.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)
        files[f"{role}.key"] = _pem(key)
    return files, now + LIFE


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Writes them, replacing what is there. Keys can be read by their owner alone from their first byte on."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        half = folder / f".{name}.new"
        half.unlink(missing_ok=True)
        half.touch(mode=0o600 if name.endswith(".key") else 0o644, exist_ok=False)
        half.write_bytes(content)
        half.replace(folder / name)


def in_the_way(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of the files that are there already."""
    return [name for name in names if (folder / name).exists()]


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "taskq development CA")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _begun("taskq development CA", name, key, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256())


def _begun(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + LIFE)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not host or not host.isascii() or any(character in host for character in " /:@"):
        raise ValueError(f"{host!r} must be a host name or an IP address, without a port")
    return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
