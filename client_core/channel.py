"""The channel to the server: one set of options for every client, so that a dead or restarted server is found soon.

This is the one place where a channel is opened; TLS and tokens go into `open_channel` and `open_blocking_channel`.
"""

from __future__ import annotations

import ipaddress
import os
import random
from importlib import metadata
from typing import Final

import grpc
import grpc.aio

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

_first_pid: int | None = None
_turn: Final = random.SystemRandom().randrange(1 << 16)


def address_from_environment() -> str:
    """`TASKQ_ADDRESS`, or 127.0.0.1:50051."""
    return os.environ.get("TASKQ_ADDRESS", "").strip() or DEFAULT_ADDRESS


def open_channel(address: str, skip: int = 0, further: Options = ()) -> grpc.aio.Channel:
    """A channel for the running event loop. Of several servers it begins with the one after `skip` others; `further`
    options win over OPTIONS.

    Raises RuntimeError in a process forked from one that had opened a channel: gRPC does not work there.
    """
    _refuse_after_fork()
    return grpc.aio.insecure_channel(target(address, skip), options=_merged(further))


def open_blocking_channel(address: str, skip: int = 0, further: Options = ()) -> grpc.Channel:
    """A channel for threads. Otherwise as `open_channel`."""
    _refuse_after_fork()
    return grpc.insecure_channel(target(address, skip), options=_merged(further))


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
