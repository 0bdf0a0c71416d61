"""The body of a request: what it says it is, and no more of it in memory than gRPC would take."""

from __future__ import annotations

import asyncio

from google.rpc import code_pb2
from starlette.requests import ClientDisconnect, Request

from taskq_server.http.errors import Refusal
from taskq_server.rpc.auth import REQUEST_SECONDS

MOST_BYTES = 4 << 20
"""As gRPC takes."""
JSON, PROTO, FORM = "application/json", "application/proto", "application/x-www-form-urlencoded"


def media_type(request: Request, *known: str) -> str:
    """What the body is, one of those that are known; empty if nothing is said, which only an empty body may.

    Whatever a form of another site's page can send without being asked first is none of them.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Refusal(
            415,
            code_pb2.UNIMPLEMENTED,
            "UNSUPPORTED_ENCODING",
            f"content-encoding must be identity; is {encoding[:64]!r}",
            accept_encoding="identity",
        )
    shown = request.headers.get("content-type")
    if shown is None:
        return ""
    kind, *parameters = (part.strip().lower() for part in shown.split(";"))
    charset = dict(parameter.partition("=")[::2] for parameter in parameters).get("charset", "utf-8").strip('"')
    if kind not in known or charset not in ("utf-8", "utf8"):
        must = " or ".join(known)
        raise Refusal(
            415,
            code_pb2.INVALID_ARGUMENT,
            "UNSUPPORTED_MEDIA_TYPE",
            f"content-type must be {must}, in UTF-8; is {shown[:64]!r}",
            accept_post=", ".join(known),
        )
    return kind


async def read(request: Request, kind: str, most_bytes: int = MOST_BYTES) -> bytes:
    """All of it. Nothing is read of one that says itself that it is too large."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most_bytes:
        raise _too_large(most_bytes)
    data = bytearray()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > most_bytes:
                    raise _too_large(most_bytes)
    except TimeoutError:
        message = f"the request was not whole after {REQUEST_SECONDS} s"
        raise Refusal(408, code_pb2.DEADLINE_EXCEEDED, "REQUEST_TOO_SLOW", message) from None
    except ClientDisconnect:
        raise Refusal(499, code_pb2.CANCELLED, "CANCELLED", "the caller has gone") from None
    if data and not kind:
        raise Refusal(415, code_pb2.INVALID_ARGUMENT, "UNSUPPORTED_MEDIA_TYPE", "a body must have a content-type")
    return bytes(data)


def _too_large(most_bytes: int) -> Refusal:
    message = f"the request must be at most {most_bytes:,} bytes"
    return Refusal(413, code_pb2.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", message)
