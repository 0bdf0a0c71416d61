"""TLS for HTTP: what gRPC shows, taken anew at each handshake."""

from __future__ import annotations

import errno
import ssl
import tempfile
from pathlib import Path

import structlog

from taskq_server.certificates import CERT, Certificates, Material
from taskq_server.clock import SECOND_US, Clock, SystemClock
from taskq_server.core.errors import CertificateRefused

log = structlog.get_logger("taskq.http")


AGAIN_US = SECOND_US
"""So long after files could not be handed to OpenSSL it is tried again."""
_OF_THE_FOLDER = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def server_context(certificates: Certificates, clock: Clock | None = None) -> ssl.SSLContext:
    """A context that follows the files. A connection keeps what it was opened with.

    CertificateRefused when OpenSSL will not show the certificate, or cannot be handed it.

    Clients are asked for no certificate: browsers and probes have none.
    """
    try:
        shown = _Shown(certificates, clock or SystemClock())
        at_first = _context(certificates.current)
    except OSError as error:
        raise _refusal(error) from error

    def follow(connection: ssl.SSLObject, name: str | None, at_first: ssl.SSLContext) -> None:
        connection.context = shown.context()

    at_first.sni_callback = follow  # asked in every handshake, with a name or without
    return at_first


class _Shown:
    """What the next connection is shown."""

    def __init__(self, certificates: Certificates, clock: Clock) -> None:
        self._certificates = certificates
        self._clock = clock
        self._done = certificates.current
        """What is shown, or never will be."""
        self._context = _context(self._done)
        self._waiting: Material | None = None
        """What could not be handed over."""
        self._again_us = 0

    def context(self) -> ssl.SSLContext:
        new = self._certificates.look()
        if new is not self._done and (new is not self._waiting or self._clock.now_us() >= self._again_us):
            self._take(new)
        return self._context

    def _take(self, new: Material) -> None:
        try:
            self._context = _context(new)
            self._done = new
        except ssl.SSLError as error:
            self._done = new
            self._tell(error)
        except OSError as error:
            if new is not self._waiting:
                self._tell(error)
            self._waiting, self._again_us = new, self._clock.now_us() + AGAIN_US

    def _tell(self, error: OSError) -> None:
        why = str(_refusal(error))
        log.error("HTTP cannot show the new certificate; the old one stays in use there", why=why)


def _context(material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of 1.2; those of 1.3 are all like this
    # The ssl module reads files only. These are in a folder that is this user's alone, and gone at once.
    with tempfile.TemporaryDirectory(prefix="taskq-tls-") as folder:
        chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
        chain.write_bytes(material.chain)
        key.touch(0o600)
        key.write_bytes(material.key)
        context.load_cert_chain(chain, key)
    return context


def _refusal(error: OSError) -> CertificateRefused:
    if isinstance(error, ssl.SSLError):  # gRPC can show it, and OpenSSL will not
        return CertificateRefused(CERT, "must be a certificate that HTTP can show, too", f"{error}")
    if error.errno in _OF_THE_FOLDER:
        rule = (
            "must name a folder that the server can write to, such as a tmpfs: HTTP by TLS keeps its certificate there "
            "for a moment; TASKQ_HTTP_LISTEN= does without HTTP"
        )
        return CertificateRefused("TMPDIR", rule, f"{error}")
    return CertificateRefused(CERT, "must be kept in a file for a moment to be shown by HTTP", f"{error}")
