"""`taskq health`: whether a server would take calls, as one line and an exit code, for probes.

The flags' defaults and the exit codes are those of grpc_health_probe, so that it may stand wherever that does.
"""

from __future__ import annotations

import asyncio
import enum
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from admin_client import profiles
from client_core.access import ENVIRONMENT, Access
from client_core.channel import address_from_environment, open_channel
from client_core.knock import knock
from client_core.times import to_seconds


class Exit(enum.IntEnum):
    """What the exit code says."""

    SERVING = 0
    WRONG_ARGUMENTS = 1
    NOT_CONNECTED = 2
    CALL_FAILED = 3
    NOT_SERVING = 4


class _WrongArguments(click.UsageError):
    """Not click's 2: that is a server that cannot be reached."""

    exit_code = Exit.WRONG_ARGUMENTS


class _Probe(click.Command):
    """A command with an exit code of its own for wrong usage."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except click.UsageError as error:
            raise _WrongArguments(error.format_message(), error.ctx) from error


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        seconds = to_seconds(value)
    except ValueError as fault:
        raise click.BadParameter(str(fault)) from None
    if not 0 < seconds <= 3600:
        raise click.BadParameter("must be more than nothing, and 1h at most")
    return seconds


def _file(flag: str, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(flag, type=click.Path(dir_okay=False), metavar="FILE", help=f"PEM file: {what}")


@click.command("health", cls=_Probe)
@click.argument("service", default="")
@click.option("--profile", metavar="NAME", help="the server by its name: `taskq config list`")
@click.option("--address", metavar="HOST:PORT", help="the server's  [default: TASKQ_ADDRESS, or 127.0.0.1:50051]")
@click.option("--tls/--plaintext", default=None, help="whatever the environment says")
@_file("--tls-ca", "the CA of the server's certificate")
@_file("--tls-cert", "the certificate to show to the server, with its --tls-key")
@_file("--tls-key", "the key of --tls-cert")
@click.option("--tls-server-name", metavar="NAME", help="what the server's certificate is made out to")
@click.option("--connect-timeout", metavar="SPAN", default="1s", show_default=True, callback=_seconds)
@click.option("--rpc-timeout", metavar="SPAN", default="1s", show_default=True, callback=_seconds)
def health(service: str, connect_timeout: float, rpc_timeout: float, **given: Any) -> None:
    """Ask a server whether it serves, or whether SERVICE does: taskq.readiness, or the full name of a service.

    Prints what it answers. Exit codes: 0 it serves; 1 wrong arguments; 2 it cannot be reached; 3 the call failed; 4 it
    does not serve now. Where no flag says so, TASKQ_ADDRESS and TASKQ_TLS_* do, as for all clients, then the profile in
    use.
    """
    try:
        given = profiles.completed(given, os.environ)
        address = given["address"] or address_from_environment()
        files = {name: given[f"tls_{name.lower()}"] for name in ("CA", "CERT", "KEY", "SERVER_NAME")}
        access = _access(given["tls"], {name: value for name, value in files.items() if value is not None})
        status = asyncio.run(_status(service, address, access, connect_timeout, rpc_timeout))
    except (ValueError, profiles.WrongProfiles) as fault:
        _end(Exit.WRONG_ARGUMENTS, str(fault))
    click.echo(status)
    sys.exit(Exit.SERVING if status == "SERVING" else Exit.NOT_SERVING)


def _access(tls: bool | None, files: Mapping[str, str]) -> Access:
    """As for any client, each flag in the place of its variable."""
    if tls is False and files:
        raise ValueError("--plaintext and --tls-… are both given; must be one")
    environment = dict(os.environ) | {f"TASKQ_TLS_{name}": value for name, value in files.items()}
    if tls is not None or files:
        environment["TASKQ_TLS"] = "false" if tls is False else "true"
    return Access(tls=ENVIRONMENT.tls_now(environment) or False)


async def _status(service: str, address: str, access: Access, connect_timeout: float, rpc_timeout: float) -> str:
    async with open_channel(address, access=access) as channel:
        await _wait_for_connection(channel, address, access, connect_timeout)
        return await _ask(channel, service, rpc_timeout)


async def _wait_for_connection(channel: grpc.aio.Channel, address: str, access: Access, seconds: float) -> None:
    # A blocking channel is waited for by a thread of gRPC's, which fails aloud when the channel is closed meanwhile.
    try:
        async with asyncio.timeout(seconds):
            await channel.channel_ready()
    except TimeoutError:
        found = knock(address, access)
        why = found if isinstance(found, str) else f"no connection to {address} within {seconds:g} s"
        _end(Exit.NOT_CONNECTED, why)


async def _ask(channel: grpc.aio.Channel, service: str, seconds: float) -> str:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
    except grpc.aio.AioRpcError as error:
        _end(Exit.CALL_FAILED, f"{error.code().name}: {error.details() or 'the server gave no reason'}")
    known = health_pb2.HealthCheckResponse.ServingStatus
    return known.Name(response.status) if response.status in known.values() else str(response.status)


def _end(code: Exit, why: str) -> NoReturn:
    click.echo(f"taskq health: {why}", err=True)
    sys.exit(code)
