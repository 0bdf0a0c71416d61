"""Callers that show something: tokens that hold, and others; certificates."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from taskq_server.core import token as api_token
from taskq_server.server import Server
from taskq_server.store.verbs import tokens
from taskq_server.store.verbs.tokens import NewToken, Revocation

Metadata = tuple[tuple[str, str], ...]


async def granted(server: Server, principal: str, *rights: str, expire_after_us: int | None = None) -> str:
    """A token that the server knows."""
    text = api_token.new()
    new = NewToken(text[:15], api_token.hash_of(text), principal, rights, expire_after_us)
    await server._store.write(tokens.apply, [new])
    await server.access.tick()
    return text


async def revoke(server: Server, *texts: str) -> None:
    """Its streams have been told to end when this returns."""
    await server._store.write(tokens.apply, [Revocation(tuple(text[:15] for text in texts))])
    await server.access.tick()


def showing(token: str) -> Metadata:
    """The metadata of a call that shows a token."""
    return (("authorization", f"Bearer {token}"),)


class _Showing:
    def __init__(self, token: str) -> None:
        self._token = token

    async def _shown(self, continuation, details, request):  # type: ignore[no-untyped-def]
        with_token = grpc.aio.ClientCallDetails(
            details.method, details.timeout, showing(self._token), details.credentials, details.wait_for_ready
        )
        return await continuation(with_token, request)


class _ShowingOnce(_Showing, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    intercept_unary_unary = _Showing._shown


class _ShowingOnStreams(_Showing, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    intercept_unary_stream = _Showing._shown


def show(token: str) -> list[grpc.aio.ClientInterceptor]:
    """Shows a token with every call of a channel."""
    return [_ShowingOnce(token), _ShowingOnStreams(token)]


@dataclass(frozen=True)
class Certificate:
    """With its key, as PEM."""

    chain: bytes
    key: bytes


def certificate(ca: trustme.CA, *names: x509.GeneralName, common_name: str = "somebody") -> Certificate:
    """One with these subject alternative names, of any kind; trustme makes none with a URI."""
    key = ec.generate_private_key(ec.SECP256R1())
    ca_key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    ca_certificate = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]))
        .issuer_name(ca_certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    signed = builder.sign(ca_key, hashes.SHA256())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Certificate(signed.public_bytes(pem), key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
