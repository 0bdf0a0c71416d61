"""UUIDs as text and as the sixteen bytes that are stored."""

from __future__ import annotations

import os
import time


def to_text(raw: bytes) -> str:
    """The canonical form (RFC 9562, section 4)."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def from_text(text: str) -> bytes:
    """The bytes of a canonical UUID, in either case; anything else is a ValueError."""
    if len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-":
        raw = bytes.fromhex(text.replace("-", ""))
        if len(raw) == 16:  # fromhex passes over white space
            return raw
    raise ValueError("must be a UUID such as 019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10")


def new() -> bytes:
    """A UUIDv7: by time, so that rows are added at the end of their index."""
    milliseconds = time.time_ns() // 1_000_000
    raw = bytearray(milliseconds.to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    return bytes(raw)
