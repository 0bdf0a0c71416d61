"""How a client comes in: by TLS or in plaintext, with a token or without.

What a program says wins over the environment: `TASKQ_TLS`, `TASKQ_TLS_CA`, `TASKQ_TLS_CERT`, `TASKQ_TLS_KEY`,
`TASKQ_TLS_SERVER_NAME`, `TASKQ_TOKEN`, `TASKQ_TOKEN_FILE`. All of it is read when a channel is opened.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

PathLike = str | os.PathLike[str]

_SWITCH: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class TLS:
    """TLS with the server. Files are PEM, and read whenever a channel is opened.

    ca           the CAs of which one must have signed the server's certificate; absent: those of this system
    cert, key    what this client shows of itself, if the server asks: both, or neither
    server_name  what the server's certificate must be made out to; absent: the host of the address
    """

    ca: PathLike | None = None
    cert: PathLike | None = None
    key: PathLike | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            there, missing = ("a cert", "key") if self.key is None else ("a key", "cert")
            raise ValueError(f"TLS has {there} and no {missing}; must have both, or neither")

    def roots(self) -> bytes | None:
        """The CAs; None: those that gRPC brings along, as this system has none."""
        ca = self.ca or ssl.get_default_verify_paths().cafile
        return _read(ca) if ca is not None else None

    def context(self) -> ssl.SSLContext:
        """The same for Python's own TLS. ValueError names the file that cannot be used."""
        context = ssl.create_default_context()
        if self.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_verify_locations(cadata=_read(self.ca).decode("ascii"))
            except (ssl.SSLError, UnicodeDecodeError) as error:
                raise ValueError(f"{os.fspath(self.ca)} cannot be used; must hold the CA's PEM certificate") from error
        if self.cert is not None and self.key is not None:
            _read(self.cert), _read(self.key)
            try:
                context.load_cert_chain(self.cert, self.key, password="")
            except ssl.SSLError as error:
                names = f"{os.fspath(self.cert)} and {os.fspath(self.key)}"
                raise ValueError(f"{names} cannot be used; must be a PEM certificate and its key") from error
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC, which would not say what is wrong with a file: so it is tried first."""
        self.context()
        cert, key = self.cert and _read(self.cert), self.key and _read(self.key)
        return grpc.ssl_channel_credentials(self.roots(), key or None, cert or None)


@dataclass(frozen=True, slots=True)
class Access:
    """What a program has said of it; the rest comes from the environment.

    tls      True: by the environment's files or this system's CAs; False: plaintext; absent: as the environment says
    tls_ca   TLS with this CA
    token    absent: the environment's
    """

    tls: TLS | bool | None = None
    tls_ca: PathLike | None = None
    token: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.tls_ca is not None and (isinstance(self.tls, TLS) or self.tls is False):
            raise ValueError("tls and tls_ca are both given; must be one, as tls_ca=… is short for tls=TLS(ca=…)")

    def tls_now(self, environment: Mapping[str, str] = os.environ) -> TLS | None:
        """The TLS to use, None for plaintext. ValueError when the environment contradicts itself."""
        if isinstance(self.tls, TLS) or self.tls is False:
            return self.tls or None
        files = {name: environment.get(f"TASKQ_TLS_{name.upper()}", "").strip() or None for name in _FIELDS}
        if (files["cert"] is None) != (files["key"] is None):
            raise ValueError("TASKQ_TLS_CERT and TASKQ_TLS_KEY must be set together")
        if self.tls_ca is not None:
            return TLS(self.tls_ca, files["cert"], files["key"], files["server_name"])
        is_wanted = self.tls or _switch(environment.get("TASKQ_TLS", ""))
        if is_wanted is None:
            is_wanted = files["ca"] is not None or files["cert"] is not None
        return TLS(**files) if is_wanted else None

    def token_now(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The token to send, which is never shown. ValueError when it cannot be read or be one, or there are two."""
        token, path = environment.get("TASKQ_TOKEN", "").strip(), environment.get("TASKQ_TOKEN_FILE", "")
        if self.token:
            token = self.token
        elif token and path:
            raise ValueError("TASKQ_TOKEN and TASKQ_TOKEN_FILE are both set; must be one of the two")
        elif path:
            token = _read(path).decode("ascii", errors="replace").strip()
        if not token:
            return None
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ValueError("the token holds what no token has; must be printable ASCII without a space")
        return token


ENVIRONMENT: Final = Access()
"""All of it from the environment."""

_FIELDS: Final = ("ca", "cert", "key", "server_name")


def is_loopback(address: str) -> bool:
    """Whether what is sent to this address, or these, stays on this machine."""
    return all(_is_home(one.strip()) for one in address.split(","))


def _is_home(address: str) -> bool:
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition("/")[2].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _switch(text: str) -> bool | None:
    if not text.strip():
        return None
    if (switch := _SWITCH.get(text.strip().lower())) is None:
        raise ValueError(f"TASKQ_TLS is {text!r}; must be true or false")
    return switch


def _read(path: PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{os.fspath(path)} cannot be read: {error.strerror}") from error
