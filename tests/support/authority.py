"""A CA of the test's own, which signs whatever it is asked to."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

HOUR = timedelta(hours=1)
HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    cert: str
    key: str

    @property
    def fingerprint(self) -> bytes:
        """The SHA-256 of the certificate, as a peer sees it."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(Path(self.cert).read_text())).digest()

    def put_in_place_of(self, other: Pair) -> None:
        """As a rotation does it: one file after the other."""
        for mine, theirs in ((self.cert, other.cert), (self.key, other.key)):
            Path(theirs).write_bytes(Path(mine).read_bytes())


class Authority:
    """Writes its certificate to `ca`, and what it signs beside it."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.ca = str(folder / f"{name}.pem")
        builder = self._builder(self._name, self._key.public_key(), datetime.now(UTC) + 24 * HOUR)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        Path(self.ca).write_bytes(self._signed(builder))

    def signs(
        self,
        name: str,
        hosts: Sequence[str] = HOSTS,
        *,
        uri: str = "",
        common_name: str = "",
        begins_in: timedelta = -HOUR,
        ends_in: timedelta = HOUR,
        key: Any = None,
        password: bytes = b"",
    ) -> Pair:
        """A certificate of that name in files of that name."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else [])
        builder = self._builder(subject, key.public_key(), now + ends_in, now + begins_in)
        names = [*map(_name, hosts), *([x509.UniformResourceIdentifier(uri)] if uri else [])]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pair = Pair(str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key"))
        Path(pair.cert).write_bytes(self._signed(builder))
        encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
        Path(pair.key).touch(mode=0o600)
        Path(pair.key).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return pair

    def _builder(
        self, subject: x509.Name, key: Any, ends: datetime, begins: datetime | None = None
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins or datetime.now(UTC) - HOUR)
            .not_valid_after(ends)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
