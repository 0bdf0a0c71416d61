"""Certificates of the kit's own: a server that the processor may trust, and one that it must not."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final

import grpc

from admin_client import certificates


class Authority:
    """A CA and a server's certificate, made when they are first asked for."""

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return certificates.make()[0]

    def credentials(self) -> grpc.ServerCredentials:
        """What a server shows of itself."""
        return grpc.ssl_server_credentials([(self._files["server.key"], self._files["server.pem"])])

    def write_ca(self, folder: Path) -> Path:
        """The file for TASKQ_TLS_CA."""
        path = folder / "ca.pem"
        path.write_bytes(self._files["ca.pem"])
        return path


OURS: Final = Authority()
STRANGERS: Final = Authority()
