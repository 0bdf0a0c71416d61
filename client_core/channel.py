"""The channel to the server: one set of options for every client, so that a dead or restarted server is found soon.

This is the one place where a channel is opened.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
from collections.abc import Callable
from importlib import metadata
from typing import Any, Final, Self

import grpc
import grpc.aio

from client_core.access import ENVIRONMENT, TLS, Access, is_loopback

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"

Options = tuple[tuple[str, int | str], ...]


def _version() -> str:
    try:
        return metadata.version("taskq")
    except metadata.PackageNotFoundError:  # run from a copy of the source
        return "0"


CLIENT: Final = f"taskq-python/{_version()}"

# gRPC ignores a key that it does not know; a test holds these against the list of known ones.
OPTIONS: Final[Options] = (
    ("grpc.primary_user_agent", CLIENT),
    # The server allows a ping every 10 s; together these find a half-open connection within 30 s, also a quiet one.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found within two seconds; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # We repeat calls ourselves, under the same ids; a policy from DNS or from gRPC would do it twice.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Each channel has its own connection, so that a busy stream never delays a heartbeat.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)

NO_PROBE: Final[Options] = (("grpc.http2.bdp_probe", 0),)
"""For heartbeats: no ping measures the bandwidth after each answer. A task stream needs that: with windows of 64 KiB a
full one is 5 % slower."""

STRAIGHT: Final[Options] = (("grpc.enable_http_proxy", 0),)
"""In plaintext: what stays on this machine, or on a network that is trusted, is not sent to a proxy elsewhere."""

_first_pid: int | None = None
_turn: Final = random.SystemRandom().randrange(1 << 16)


def address_from_environment() -> str:
    """`TASKQ_ADDRESS`, or 127.0.0.1:50051."""
    return os.environ.get("TASKQ_ADDRESS", "").strip() or DEFAULT_ADDRESS


def open_channel(address: str, skip: int = 0, further: Options = (), access: Access = ENVIRONMENT) -> grpc.aio.Channel:
    """A channel for the running event loop. Of several servers it begins with the one after `skip` others; `further`
    options win over OPTIONS.

    Raises RuntimeError in a process forked from one that had opened a channel: gRPC does not work there; and ValueError
    for what `check` refuses.
    """
    _refuse_after_fork()
    tls, token = check(address, access)
    options = _merged((*_expected_name(tls), *(() if tls else STRAIGHT), *further))
    if tls is None:
        channel = grpc.aio.insecure_channel(target(address, skip), options=options)
    else:
        channel = grpc.aio.secure_channel(target(address, skip), tls.credentials(), options=options)
    return channel if token is None else _Authorised(channel, access, token)  # type: ignore[return-value]


def open_blocking_channel(
    address: str, skip: int = 0, further: Options = (), access: Access = ENVIRONMENT
) -> grpc.Channel:
    """A channel for threads. Otherwise as `open_channel`."""
    _refuse_after_fork()
    tls, token = check(address, access)
    options = _merged((*_expected_name(tls), *further))
    if tls is None:
        channel = grpc.insecure_channel(target(address, skip), options=options)
    else:
        channel = grpc.secure_channel(target(address, skip), tls.credentials(), options=options)
    return channel if token is None else _Authorised(channel, access, token)  # type: ignore[return-value]


def check(address: str, access: Access) -> tuple[TLS | None, str | None]:
    """The TLS and the token to use. ValueError for files that cannot be used, for a token that others could read on its
    way, and for several servers that have no name in common."""
    tls, token = access.tls_now(), access.token_now()
    if tls is None and token is not None and not is_loopback(address):
        raise ValueError(
            f"a token would go to {address} in plaintext; must go by TLS (TASKQ_TLS_CA, or tls_ca=…), or stay on this "
            "machine"
        )
    if tls is not None and tls.server_name is None and "," in address:
        raise ValueError(
            f"{address!r} are several servers, and TLS knows a server by its name; must set TASKQ_TLS_SERVER_NAME "
            "(tls=TLS(server_name=…)) to one that all their certificates have"
        )
    return tls, token


class _Authorised:
    """A channel, asyncio or blocking, whose calls carry the token. Interceptors would cost a task per call."""

    def __init__(self, channel: Any, access: Access, token: str) -> None:
        self._channel = channel
        self._access = access
        self._token = token

    def unary_unary(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        return self._with_token(self._channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        return self._with_token(self._channel.unary_stream(*arguments, **options))

    def _with_token(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def authorised(request: object, **options: Any) -> Any:
            with contextlib.suppress(ValueError):  # a file that is being replaced: the token of before may still do
                self._token = self._access.token_now() or self._token
            bearer = ("authorization", f"Bearer {self._token}")
            return call(request, metadata=(bearer, *(options.pop("metadata", None) or ())), **options)

        return authorised

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._channel.close()


def target(address: str, skip: int = 0) -> str:
    """What gRPC calls one address, or several servers' that are separated by commas.

    Of several, a channel stays with one as long as it can be reached, whatever it answers, and goes on with the next
    when it cannot. Each process begins with another one, and all its channels with the same, unless they are to `skip`
    some. ValueError where one of several is not an IP address and a port: names are for DNS, which may give one name
    several addresses.
    """
    if "," not in address:
        return address
    addresses = [one.strip().replace("localhost:", "127.0.0.1:") for one in address.split(",")]
    versions = {_ip_version(one) for one in addresses}
    if len(versions) != 1 or None in versions:
        raise ValueError(
            f"{address!r} must be IP addresses of one version, each with its port, separated by commas; "
            "or one name, to which DNS gives several addresses"
        )
    turn = (_turn + skip) % len(addresses)
    return f"ipv{versions.pop()}:{','.join(addresses[turn:] + addresses[:turn])}"


def _ip_version(address: str) -> int | None:
    host, _, port = address.rpartition(":")
    try:
        return ipaddress.ip_address(host.strip("[]")).version if port.isdecimal() else None
    except ValueError:
        return None


def _expected_name(tls: TLS | None) -> Options:
    return () if tls is None or tls.server_name is None else (("grpc.ssl_target_name_override", tls.server_name),)


def _merged(further: Options) -> list[tuple[str, int | str]]:
    return list((dict(OPTIONS) | dict(further)).items())


def _refuse_after_fork() -> None:
    global _first_pid
    pid = os.getpid()
    if _first_pid is None:
        _first_pid = pid
    if _first_pid != pid:
        raise RuntimeError(
            f"process {_first_pid} used gRPC before it forked process {pid}; "
            "must fork before, or start children by 'spawn'"
        )
