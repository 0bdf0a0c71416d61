"""Why a server that is there cannot be talked to.

gRPC answers UNAVAILABLE when the server is away, and also when only one side speaks TLS or does not trust the other,
which no waiting mends. So we knock ourselves, by Python's own TLS and with the same files, and say what is to be done.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
from typing import Final

from client_core.access import TLS, Access
from client_core.errors import HandshakeFailed, TaskqError, Unavailable

TIMEOUT_SECONDS: Final = 2.0
"""A server that does not answer within this is away, as far as we can tell."""

# Of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _WRONG_HOST, _WRONG_IP = 9, 10, 62, 64


class Door(enum.Enum):
    """What a knock has found."""

    OPEN = enum.auto()
    NOBODY = enum.auto()


async def explain(error: TaskqError, address: str, access: Access) -> tuple[TaskqError, bool]:
    """HandshakeFailed in the place of an Unavailable that is one. Else the same error, and whether the handshake does
    agree, with the files as they are now: a channel that still fails has older ones."""
    if not isinstance(error, Unavailable) or error.reason or "failed to connect" not in error.message:
        return error, False
    door = await asyncio.to_thread(knock, address, access)
    return (HandshakeFailed(door), False) if isinstance(door, str) else (error, door is Door.OPEN)


def knock(address: str, access: Access) -> str | Door:
    """Knocks at each server until one opens; else answers what is to be done, or that nobody is there. Blocks."""
    found: str | Door = Door.NOBODY
    for one in address.split(","):
        if (answer := _knock_at(one.strip(), access.tls_now())) is Door.OPEN:
            return answer
        found = found if isinstance(found, str) else answer
    return found


def _knock_at(address: str, tls: TLS | None) -> str | Door:
    host, _, port = address.rpartition("/")[2].rpartition(":")
    host = host.strip("[]")
    if address.startswith(("unix:", "unix-abstract:")) or not port.isdecimal():
        return Door.NOBODY
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_SECONDS) as door:
            return _listen_for_tls(door, address) if tls is None else _shake_hands(door, address, host, tls)
    except OSError:
        return Door.NOBODY


def _listen_for_tls(door: socket.socket, address: str) -> str | Door:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent to it: does it speak TLS?
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(door):
            return (
                f"the server at {address} speaks TLS, and this client plaintext; set TASKQ_TLS_CA (tls_ca=…) to the CA "
                "of its certificate, or TASKQ_TLS=true (tls=True) if that is one of the system's"
            )
    except ssl.SSLError:
        return Door.OPEN


def _shake_hands(door: socket.socket, address: str, host: str, tls: TLS) -> str | Door:
    context = tls.context()
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(door, server_hostname=tls.server_name or host) as session:
            if session.recv(1):  # a server of HTTP/2 speaks first
                return Door.OPEN
    except ssl.SSLCertVerificationError as fault:
        return _distrust(fault, address, tls.server_name or host)
    except ssl.SSLError as fault:
        if fault.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
            return (
                f"the server at {address} speaks plaintext, and this client TLS; start it with TASKQ_TLS_CERT and "
                "TASKQ_TLS_KEY, or set TASKQ_TLS=false (tls=False) here if the way there is safe"
            )
        if "ALERT" not in (fault.reason or ""):
            return Door.NOBODY
    except ConnectionError:
        pass
    shown = f"{tls.cert} was not signed by its TASKQ_TLS_CLIENT_CA, or has expired" if tls.cert else "none is set"
    return (
        f"the server at {address} hangs up on this client: it asks for a certificate, and {shown}; set TASKQ_TLS_CERT "
        "and TASKQ_TLS_KEY (tls=TLS(cert=…, key=…))"
    )


def _distrust(fault: ssl.SSLCertVerificationError, address: str, name: str) -> str:
    whose = f"the certificate of the server at {address}"
    if fault.verify_code == _EXPIRED:
        return f"{whose} has expired; renew it there, or set this machine's clock"
    if fault.verify_code == _NOT_YET_VALID:
        return f"{whose} is not valid yet; set the clock of this machine, or of the one that made it"
    if fault.verify_code in (_WRONG_HOST, _WRONG_IP):
        return (
            f"{whose} is not made out to {name}; use a host that it names, or set TASKQ_TLS_SERVER_NAME "
            "(tls=TLS(server_name=…)) to one"
        )
    return (
        f"{whose} is not signed by a CA that this client trusts ({fault.verify_message}); set TASKQ_TLS_CA (tls_ca=…) "
        "to its CA"
    )
