"""Certificates for development: a CA of one's own, and a certificate for each role.

A client is known by the URI in its certificate, `taskq:ROLE/NAME`; common names are never looked at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS: Final = ("localhost", "127.0.0.1", "::1")
CLIENTS: Final = ("scheduler", "processor", "admin", "probe")
"""A probe asks for health, which needs no rights: whoever can read its key has come by nothing."""
ROLES: Final = ("server", *CLIENTS)
FILES: Final = tuple(f"{name}.{kind}" for name in ("ca", *ROLES) for kind in ("pem", "key"))
NAME: Final = "dev"
LIFE: Final = timedelta(days=397)  # as long as browsers take a server's
EARLIER: Final = timedelta(hours=1)
"""Valid from so long ago: clocks differ."""


class NoHost(ValueError):
    """Something that nobody can have as a name."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, now: datetime) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_authority(key, now), key)

    @classmethod
    def of(cls, folder: Path) -> Authority:
        """The one that stands there. ValueError where it cannot sign; OSError."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except (ValueError, TypeError):  # the second: a key with a passphrase
            raise ValueError(f"the CA in {folder} cannot be read; must be as this command makes it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError(f"{folder}/ca.key is not the key of ca.pem; must be as this command makes them")
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            raise ValueError(f"{folder}/ca.pem has expired, and can sign nothing more")
        return cls(certificate, key)

    def files(self) -> dict[str, bytes]:
        return {"ca.pem": self.certificate.public_bytes(Encoding.PEM), "ca.key": _pem(self.key)}


def make(hosts: Sequence[str] = ()) -> tuple[dict[str, bytes], datetime]:
    """The files by name, and when they end. NoHost for what is none."""
    names = [_host(host) for host in (*HOSTS, *hosts)]
    authority = Authority.new(_now())
    files, end = _sign(authority, ROLES, names)
    return authority.files() | files, end


def make_missing(folder: Path, hosts: Sequence[str] = ()) -> tuple[dict[str, bytes], datetime]:
    """Those of roles of which a folder with a CA and its key has none. NoHost; ValueError of its CA; OSError."""
    names = [_host(host) for host in (*HOSTS, *hosts)]
    missing = [role for role in ROLES if not in_the_way(folder, (f"{role}.pem", f"{role}.key"))]
    return _sign(Authority.of(folder), missing, names)


def _sign(
    authority: Authority, roles: Iterable[str], names: Sequence[x509.GeneralName]
) -> tuple[dict[str, bytes], datetime]:
    now, files = _now(), {}
    end = min(now + LIFE, authority.certificate.not_valid_after_utc)
    for role in roles:
        is_server = role == "server"
        key = ec.generate_private_key(ec.SECP256R1())
        uri = x509.UniformResourceIdentifier(f"taskq:{role}/{NAME}")
        builder = _begun(f"taskq {role}", authority.certificate.subject, key, now, end)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([*names, uri] if is_server else [uri]), critical=False
        )
        usage = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
        files[f"{role}.pem"] = builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)
        files[f"{role}.key"] = _pem(key)
    return files, end


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
    builder = _begun("taskq development CA", name, key, now, now + LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256())


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _begun(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(end)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not host or not host.isascii() or any(character in host for character in " /:@"):
        raise NoHost(f"{host!r} must be a host name or an IP address, without a port")
    return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
