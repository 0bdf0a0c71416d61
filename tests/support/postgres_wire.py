"""The messages between PostgreSQL and its clients, as far as those who stand between them must know them."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
"""What a client may send in the place of a protocol's version."""
VERSION = 3 << 16
NO = b"N"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Message:
    """`kind` is a letter, in upper and lower case, each with its own meaning in either direction."""

    kind: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.kind + struct.pack("!I", len(self.body) + 4) + self.body


@dataclass(frozen=True, slots=True)
class Startup:
    """The first message of a connection, which has no kind."""

    code: int
    body: bytes

    @property
    def raw(self) -> bytes:
        return struct.pack("!II", len(self.body) + 8, self.code) + self.body

    @property
    def parameters(self) -> dict[str, str]:
        words = texts(self.body.removesuffix(b"\0"))
        return dict(zip(words[::2], words[1::2], strict=True))


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """None once the other side has gone."""
    try:
        kind, length = struct.unpack("!cI", await reader.readexactly(5))
        return Message(kind, await reader.readexactly(length - 4))
    except (asyncio.IncompleteReadError, OSError):
        return None


async def read_startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Startup | None:
    """What remains when encryption is refused."""
    while True:
        try:
            length, code = struct.unpack("!II", await reader.readexactly(8))
            body = await reader.readexactly(length - 8)
        except (asyncio.IncompleteReadError, OSError):
            return None
        if code not in (SSL_REQUEST, GSS_REQUEST):
            return Startup(code, body)
        writer.write(NO)


def texts(body: bytes) -> list[str]:
    return [word.decode() for word in body.removesuffix(b"\0").split(b"\0")]


def text(*words: str) -> bytes:
    return b"".join(word.encode() + b"\0" for word in words)


def error(severity: str, code: str, sentence: str) -> Message:
    return Message(b"E", text(f"S{severity}", f"V{severity}", f"C{code}", f"M{sentence}") + b"\0")


async def dial(url: str) -> Streams:
    """A connection to the first server that a libpq URL names; raises OSError."""
    split, query = urlsplit(url), _query(urlsplit(url))
    host = query.get("host") or unquote(split.hostname or "127.0.0.1")
    port = int(query.get("port") or split.port or 5432)
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


def through(url: str, port: int) -> str:
    """The same user and database, by way of whoever listens on that port."""
    split = urlsplit(url)
    user = split.netloc.rpartition("@")[0] or _query(split).get("user", "")
    return f"postgresql://{user}@127.0.0.1:{port}{split.path}"


def _query(split: SplitResult) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(split.query).items()}
