"""TLS for HTTP: what gRPC shows, taken anew at each handshake."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

import structlog

from taskq_server.certificates import CERT, Certificates, Material
from taskq_server.core.errors import CertificateRefused

log = structlog.get_logger("taskq.http")


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """A context that follows the files. A connection keeps what it was opened with.

    CertificateRefused when OpenSSL will not show the certificate, or cannot be handed it.

    Clients are asked for no certificate: browsers and probes have none.
    """
    shown, context = certificates.current, _context(certificates.current)

    def follow(connection: ssl.SSLObject, name: str | None, at_first: ssl.SSLContext) -> None:
        nonlocal shown, context
        if (now := certificates.look()) is not shown:
            shown = now
            try:
                context = _context(now)
            except CertificateRefused as refused:
                log.error("HTTP cannot show the new certificate; the old one stays in use there", why=str(refused))
        connection.context = context

    at_first = _context(shown)
    at_first.sni_callback = follow  # asked in every handshake, with a name or without
    return at_first


def _context(material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of 1.2; those of 1.3 are all like this
    # The ssl module reads files only. These are in a folder that is this user's alone, and gone at once.
    try:
        with tempfile.TemporaryDirectory(prefix="taskq-tls-") as folder:
            chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
            chain.write_bytes(material.chain)
            key.touch(0o600)
            key.write_bytes(material.key)
            context.load_cert_chain(chain, key)
    except ssl.SSLError as error:  # gRPC can show it, and OpenSSL will not
        raise CertificateRefused(CERT, "must be a certificate that HTTP can show, too", f"{error}") from error
    except OSError as error:
        rule = (
            "must name a folder that the server can write to, such as a tmpfs: HTTP by TLS keeps its certificate there "
            "for a moment; TASKQ_HTTP_LISTEN= does without HTTP"
        )
        raise CertificateRefused("TMPDIR", rule, f"{error}") from error
    return context
