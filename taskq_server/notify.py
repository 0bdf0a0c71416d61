"""To systemd, where it has started this and wants to know: that the server serves, that it stops."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"


def tell(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """As sd_notify(3) does. Nothing where nobody listens: to serve is more than to say so."""
    if not (address := environment.get("NOTIFY_SOCKET")):
        return
    address = "\0" + address[1:] if address.startswith("@") else address  # a name that is in no file system
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as there:
            there.sendto(state.encode(), address)
    except OSError:
        pass
