"""The certificates that the server shows and trusts: what stands in files, read again when they change.

New files that cannot be used leave the old ones in use, and are reported once. Whoever listens takes `current` at each
handshake; nothing here knows how it is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from taskq_server.clock import SECOND_US, Alarm, SystemClock
from taskq_server.core.errors import CertificateRefused

log = structlog.get_logger("taskq.certificates")

CERT, KEY, CLIENT_CA = "TASKQ_TLS_CERT", "TASKQ_TLS_KEY", "TASKQ_TLS_CLIENT_CA"
OTHERS = 0o007
"""The permissions of those who are neither the owner nor of the group."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Material:
    """PEM that was checked: it can be shown until `expire_time`."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    expire_time: datetime


class Certificates:
    """Reads the files when it is made, and raises CertificateRefused when they cannot be used.

    The files are compared by content, not by time: they are small, a rotation may keep the time of a file, and what
    mounts secrets exchanges a link.
    """

    def __init__(self, cert: str, key: str, client_ca: str | None = None, clock: SystemClock | None = None) -> None:
        # TLS is judged by this machine's clock, whatever the clock of the tasks.
        self._clock = clock or SystemClock()
        self._paths = {CERT: Path(cert), KEY: Path(key)} | ({CLIENT_CA: Path(client_ca)} if client_ca else {})
        self._lock = threading.Lock()
        self._seen = self._read()
        self._current = self._checked(self._seen)
        self._fault: str | None = None
        self._reported: str | None = None
        self._warn_of_exposed_key()

    @property
    def current(self) -> Material:
        """What is in use."""
        return self._current

    @property
    def fault(self) -> str | None:
        """Why the files, as they stand, are not in use; None when they are."""
        return self._fault

    @property
    def expire_time(self) -> datetime:
        """When the first certificate that is shown ends."""
        return self._current.expire_time

    def look(self) -> Material:
        """Takes new files over if they can be used, and answers what is in use. Never raises; from any thread."""
        with self._lock:
            try:
                contents = self._read()
                if contents != self._seen:
                    self._current = self._checked(contents)
                    self._seen = contents
                    log.info("new certificates are in use", expires=self._current.expire_time.isoformat())
                    self._warn_of_exposed_key()
                self._fault = None
            except CertificateRefused as refused:
                self._fault = str(refused)
            except Exception as error:  # noqa: BLE001 - whatever stands in the files, the old ones stay in use
                self._fault = f"the files cannot be used: {error!r}"
            return self._current

    async def run(self) -> None:
        """Looks every second, so that a fault is reported even when nobody connects."""
        alarm = Alarm(self._clock)
        while True:
            await alarm.wait(self.tick())

    def tick(self) -> int:
        """Looks, and answers when to look again. What it finds at fault twice is no rotation under way: it is said."""
        before = self._fault
        self.look()
        if self._fault is None:
            self._reported = None
        elif self._fault == before != self._reported:
            log.error(
                "new certificates cannot be used; the old ones stay in use",
                fault=self._fault,
                expires=self._current.expire_time.isoformat(),
            )
            self._reported = self._fault
        return self._clock.now_us() + SECOND_US

    def _read(self) -> dict[str, bytes]:
        contents = {}
        for setting, path in self._paths.items():
            try:
                contents[setting] = path.read_bytes()
            except OSError as error:
                raise CertificateRefused(setting, "must be a readable file", f"{error.strerror} at {path}") from error
        return contents

    def _checked(self, contents: dict[str, bytes]) -> Material:
        chain = self._parsed(CERT, "must hold PEM certificates, the server's first", contents, _certificates)
        key = self._parsed(KEY, "must hold one PEM private key without a passphrase", contents, _private_key)
        if CLIENT_CA in contents:
            self._parsed(CLIENT_CA, "must hold PEM certificates", contents, _certificates)
        if not _can_be_shown(key):
            rule = "must be an RSA key of at least 2,048 bits, or an EC key on P-256 or P-384"
            raise CertificateRefused(KEY, rule, f"{self._paths[KEY]}")
        if key.public_key() != self._parsed(CERT, "must have a key of a known kind", contents, _public_key):
            raise CertificateRefused(KEY, f"must be the key of the certificate in {CERT}", f"{self._paths[KEY]}")
        now = datetime.fromtimestamp(self._clock.now_us() / 1_000_000, UTC)
        for certificate in chain:
            if now > certificate.not_valid_after_utc:
                ended = f"{self._paths[CERT]} ended at {certificate.not_valid_after_utc.isoformat()}"
                raise CertificateRefused(CERT, "must not have expired", ended)
            if now < certificate.not_valid_before_utc:
                begins = f"{self._paths[CERT]} begins at {certificate.not_valid_before_utc.isoformat()}"
                raise CertificateRefused(CERT, "must be valid already", begins)
        expire_time = min(certificate.not_valid_after_utc for certificate in chain)
        return Material(contents[CERT], contents[KEY], contents.get(CLIENT_CA), expire_time)

    def _parsed(self, setting: str, rule: str, contents: dict[str, bytes], parse: Callable[[bytes], T]) -> T:
        try:
            return parse(contents[setting])
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: the key has a passphrase
            raise CertificateRefused(setting, rule, f"{self._paths[setting]}") from error

    def _warn_of_exposed_key(self) -> None:
        path = self._paths[KEY]
        with suppress(OSError):  # it may be exchanged at this moment
            if not path.stat().st_mode & OTHERS:
                return
            log.warning("the private key is open to every user of this machine; chmod 600 it", path=str(path))


def _certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def _public_key(pem: bytes) -> object:
    return _certificates(pem)[0].public_key()


def _private_key(pem: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, password=None)
    return key  # type: ignore[return-value]  # of another kind, it is refused next


def _can_be_shown(key: object) -> bool:
    """What gRPC's TLS cannot show would fail at each handshake, without a word to anybody."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    return isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2_048
