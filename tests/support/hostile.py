"""Peers that mean harm: HTTP/2 by hand, in plaintext and by TLS. None of them ever waits for the server."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x8, 0x9
END_STREAM, END_HEADERS = 0x1, 0x4
CANCEL = (8).to_bytes(4, "big")
LARGEST_WINDOW = (1 << 31) - 1
LARGEST_FRAME = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113, section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def hello(window: int = 65_535) -> bytes:
    """What a client opens with; `window` is how much each stream, and all together, may be sent unread."""
    settings = (4).to_bytes(2, "big") + window.to_bytes(4, "big")  # SETTINGS_INITIAL_WINDOW_SIZE
    opening = PREFACE + frame(SETTINGS, 0, 0, settings)
    return opening + frame(WINDOW_UPDATE, 0, 0, (window - 65_535).to_bytes(4, "big")) if window > 65_535 else opening


def header(name: str, value: str) -> bytes:
    """A literal that nobody remembers: RFC 7541, section 6.2.2."""
    return b"\x00" + _text(name) + _text(value)


def call(method: str, *further: tuple[str, str]) -> bytes:
    """The headers of a call."""
    pairs = [
        (":method", "POST"), (":scheme", "http"), (":path", f"/taskq.v1.{method}"), (":authority", "localhost"),
        ("te", "trailers"), ("content-type", "application/grpc"), *further,
    ]  # fmt: skip
    return b"".join(header(*pair) for pair in pairs)


def message(content: bytes) -> bytes:
    """A message of gRPC, not compressed."""
    return b"\0" + len(content).to_bytes(4, "big") + content


def in_frames(stream: int, headers: bytes) -> bytes:
    """Headers that are too long for one frame."""
    parts = [headers[at : at + LARGEST_FRAME] for at in range(0, len(headers), LARGEST_FRAME)]
    last = len(parts) - 1
    return b"".join(
        frame(CONTINUATION if at else HEADERS, END_HEADERS if at == last else 0, stream, part)
        for at, part in enumerate(parts)
    )


def _text(text: str) -> bytes:
    content = text.encode("latin-1")
    return _length(len(content)) + content


def _length(number: int) -> bytes:
    if number < 127:
        return bytes((number,))
    coded, number = bytearray((127,)), number - 127
    while number >= 128:
        coded.append(number % 128 + 128)
        number //= 128
    return bytes((*coded, number))


@contextmanager
def connected(address: str, count: int = 1, tls: bool = False) -> Iterator[list[socket.socket]]:
    """So many connections. With `tls` they have shaken hands, and trust anybody."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as opened:
        sockets = []
        for _ in range(count):
            one = opened.enter_context(socket.create_connection((host, int(port)), 10))
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.set_alpn_protocols(["h2"])
                one = opened.enter_context(context.wrap_socket(one))
            sockets.append(one)
        yield sockets


def sent(one: socket.socket, content: bytes, *, reading: bool = True) -> bool:
    """Sends all of it, and reads meanwhile unless it never does. False when the server has hung up, or, where nothing
    is read, takes no more for a second."""
    one.settimeout(1)
    try:
        for at in range(0, len(content), 65_536):
            one.sendall(content[at : at + 65_536])
            if reading and not _swallow(one):
                return False
    except OSError:
        return False
    return True


def _swallow(one: socket.socket) -> bool:
    waiting = select.poll()  # select() knows no file descriptors beyond 1,024
    waiting.register(one, select.POLLIN)
    while waiting.poll(0):
        if not one.recv(1 << 16):
            return False
    return True


def hung_up(sockets: Iterable[socket.socket], seconds: float) -> int:
    """On how many of them the server hangs up within this time."""
    left, deadline, gone = {one.fileno(): one for one in sockets}, time.monotonic() + seconds, 0
    waiting = select.poll()
    for number in left:
        waiting.register(number, select.POLLIN)
    while left and (rest := deadline - time.monotonic()) > 0:
        for number, _ in waiting.poll(rest * 1_000):
            one = left[number]
            one.settimeout(1)
            try:
                is_open = bool(one.recv(1 << 16))
            except OSError:
                is_open = False
            if not is_open:
                waiting.unregister(number)
                del left[number]
                gone += 1
    return gone
