"""API tokens: `tq_<id>_<secret>_<checksum>`.

The id is public: lists and logs show it. The secret is 256 random bits, which nobody can guess however fast a guess is
tried; so what is kept is a plain SHA-256, and a hash made slow for the sake of passwords would cost every call and
bring nothing. The beginning and the checksum let a scanner know a token that has leaked, and the server a half one
without asking anybody.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

ID = re.compile(r"tq_[0-9a-f]{12}")
_TOKEN = re.compile(r"(tq_[0-9a-f]{12})_[A-Za-z0-9_-]{43}_[0-9A-Za-z]{6}", re.ASCII)
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new() -> str:
    """A token that never was before."""
    body = f"tq_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
    return f"{body}_{_checksum(body)}"


def hash_of(text: str) -> bytes:
    """What is kept of a token; of other texts, what is kept of none."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def id_of(text: str) -> str | None:
    """The part of a token that is no secret; None for what is no token, or not a whole one."""
    match = _TOKEN.fullmatch(text)
    return match[1] if match is not None and _checksum(text[:-7]) == text[-6:] else None


def _checksum(body: str) -> str:
    """CRC-32 in six digits of base 62."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits
