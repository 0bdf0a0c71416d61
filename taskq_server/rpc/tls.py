"""TLS for gRPC: the server's credentials, taken anew at each handshake."""

from __future__ import annotations

import grpc

from taskq_server.certificates import Certificates, Material


def server_credentials(certificates: Certificates, *, asks: bool = True) -> grpc.ServerCredentials:
    """Credentials that follow the files. A connection keeps what it was opened with.

    Where there is a client CA, a client without a certificate of its never gets as far as a call; of one that has it,
    `context.auth_context()` tells the `x509_subject_alternative_name`s. Unless it `asks`, a client's certificate is not
    looked at, nor told.
    """
    shown = certificates.current

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # gRPC asks before each handshake, one at a time; None means that nothing has changed.
        nonlocal shown
        if (now := certificates.look()) is shown:
            return None
        shown = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        fetch,  # type: ignore[arg-type]  # None is for "no change", as gRPC's documentation says
        asks and shown.client_ca is not None,
    )


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.client_ca)
