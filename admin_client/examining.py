"""Certificates as an operator finds them: until when they are valid, whose they are, whether their keys are theirs."""

from __future__ import annotations

import itertools
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

AUTHORITY = "ca.pem"


@dataclass(frozen=True, slots=True)
class Found:
    """A file with a certificate, and what is wrong with it.

    names   to whom it is made out; of a CA its own name
    end     when the first of the certificates in it ends
    """

    file: Path
    names: Sequence[str]
    end: datetime
    faults: Sequence[str]


def examine(paths: Iterable[Path], ca: Path | None, soon: timedelta, now: datetime) -> list[Found]:
    """Every certificate of these files, and of the .pem files of these folders. ValueError for what is none."""
    return [_examined(file, ca, soon, now) for path in paths for file in _files(path)]


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = [file for file in sorted(path.glob("*.pem")) if b"BEGIN CERTIFICATE" in _read(file)]
    if not found:
        raise ValueError(f"there is no certificate in {path}; must have .pem files")
    yield from found


def _examined(file: Path, ca: Path | None, soon: timedelta, now: datetime) -> Found:
    chain = _certificates(file)
    authority = ca or file.with_name(AUTHORITY)
    faults = [*_times(chain, soon, now), *_key(file, chain[0])]
    if not _is_authority(chain[0]) and authority.exists() and not authority.samefile(file):
        faults += _signed(chain, _certificates(authority), authority.name)
    end = min(one.not_valid_after_utc for one in chain)
    return Found(file, _names(chain[0]), end, faults)


def _times(chain: Sequence[x509.Certificate], soon: timedelta, now: datetime) -> Iterator[str]:
    end = min(one.not_valid_after_utc for one in chain)
    if end <= now:
        yield "has expired"
    elif end <= now + soon:
        yield f"expires in {(end - now).days} days"
    if max(one.not_valid_before_utc for one in chain) > now:
        yield "is not valid yet"


def _key(file: Path, certificate: x509.Certificate) -> Iterator[str]:
    """Of a key that stands beside it."""
    path = file.with_suffix(".key")
    if not path.exists():
        return
    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError):  # the second: a key with a passphrase, which nobody gives to a server
        yield f"{path.name} cannot be used; must be a PEM key without a passphrase"
        return
    if key.public_key() != certificate.public_key():
        yield f"{path.name} is the key of another certificate"
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield f"others can read {path.name}"


def _signed(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], name: str) -> Iterator[str]:
    """Each by the next, and the last by one of the authorities: there are two of them while one is exchanged."""
    is_chain = all(_has_signed(issuer, one) for one, issuer in itertools.pairwise(chain))
    if not is_chain or not any(_has_signed(authority, chain[-1]) for authority in authorities):
        yield f"is not signed by {name}"


def _has_signed(issuer: x509.Certificate, one: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_authority(one: x509.Certificate) -> bool:
    """Whether it is a CA that has signed itself: nobody else has to."""
    try:
        constraints = one.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and _has_signed(one, one)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [certificate.subject.rfc4514_string()]
    return [str(name.value) for name in names]


def _certificates(path: Path) -> list[x509.Certificate]:
    pem = _read(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # old authorities number theirs as no one may today
            return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"{path} holds no certificate; must be PEM") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
