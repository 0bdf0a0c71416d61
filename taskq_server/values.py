"""How the values of settings are written: what each text means, and the rule that one breaks."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from pathlib import Path

from taskq_server.core.rights import of_certificates

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SQLITE, _POSTGRES = "sqlite:///", ("postgresql://", "postgres://")
_PASSWORDS = re.compile(r"(://[^:/?#@]*:).*@|([?&](?:ssl)?password=)[^&]*", re.DOTALL)
_TOKENS = re.compile(r"(tq_[0-9a-f]{12})_\S+")
_HOST_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?", re.ASCII)
_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}){1,8}/?", re.ASCII)
HTTP_PATHS = frozenset(
    [
        "act",
        "api",
        "audit",
        "calendar",
        "capabilities",
        "failures",
        "livez",
        "metrics",
        "openapi.json",
        "operations",
        "processors",
        "readyz",
        "schedules",
        "signin",
        "signout",
        "static",
        "system",
        "tasks",
        "ui",
        "v1",
    ]
)
"""The first words of what HTTP answers, but for gRPC's own, which have dots."""
_INSTALLATION = re.compile(r"[^\x00-\x1f\x7f:]{1,40}")
COLOURS = ("grey", "blue", "green", "amber", "red")
"""What an installation may be marked with."""
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):(\d{1,5})", re.ASCII)


def span(text: object) -> float:
    """Seconds in `500ms`, `30s`, `10m`, `12h` or `7d`."""
    if isinstance(text, int | float):
        return float(text)
    if not (match := _SPAN.fullmatch(str(text).strip())):
        raise ValueError("must be a number and a unit, such as 500ms, 30s, 10m, 12h or 7d")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def is_span(text: object) -> bool:
    return _SPAN.fullmatch(str(text).strip()) is not None


def address(text: str) -> str:
    match = _HOST_AND_PORT.fullmatch(text)
    if not text.startswith("unix:") and (match is None or int(match[2]) > 65535):
        raise ValueError("must be host:port with a port from 0 to 65535, such as 127.0.0.1:50051")
    return text


def address_or_none(text: str) -> str:
    match = _HOST_AND_PORT.fullmatch(text)
    if text and (match is None or int(match[2]) > 65535):
        raise ValueError("must be host:port with a port from 0 to 65535, or empty")
    return text


def hosts(text: str) -> str:
    names = host_names(text)
    if wrong := [name for name in names if not _HOST_NAME.fullmatch(name)]:
        raise ValueError(f"must be names of hosts, without ports, separated by commas; {wrong[0]!r} is none")
    return ",".join(names)


def base_path(text: str) -> str:
    if text.strip("/") and not _BASE_PATH.fullmatch(text):
        raise ValueError("must be a path of letters, digits and any of ._~- between slashes, such as /taskq; or empty")
    if text.strip("/").partition("/")[0] in HTTP_PATHS:
        raise ValueError("must not begin as a path of the server's own does")
    return text.rstrip("/")


def installation(text: str) -> str:
    name, _, colour = text.partition(":")
    if text and not (_INSTALLATION.fullmatch(name) and (":" not in text or colour in COLOURS)):
        raise ValueError(
            f"must be 1 to 40 characters without a colon; then a colon and {', '.join(COLOURS)}, or nothing"
        )
    return text


def host_names(text: str) -> list[str]:
    """The names in `taskq_http_hosts`."""
    return [name.strip().lower().rstrip(".") for name in text.split(",") if name.strip()]


def is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or address.startswith("unix:")


def certificates(text: str) -> str:
    of_certificates(text)
    return text


def file_path(text: str) -> str:
    if not text.strip():
        raise ValueError("must be the path of a file")
    return text


def default_database_url() -> str:
    """A file in the user's state folder (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return f"sqlite:///{Path(state) / 'taskq' / 'taskq.db'}"


def database(url: str) -> str:
    """The URL, if it is one of a database that we know."""
    if (url.startswith(_SQLITE) and url != _SQLITE) or (url.startswith(_POSTGRES) and not url.endswith("://")):
        return url
    raise ValueError("must be sqlite:///path, with four slashes for an absolute path, or postgresql://host/name")


def shown(url: str) -> str:
    """The URL without its password, and whatever else without API tokens, to be printed or logged. It hides too much
    rather than too little: a password that is not percent-encoded may hold what looks like the end of it."""
    url = _TOKENS.sub(r"\1_***", url)
    return _PASSWORDS.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", url)
