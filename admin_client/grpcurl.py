"""The same call for grpcurl, as a line for a shell: for scripts where this command is not, and to see what is sent."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Mapping

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from admin_client import rpcs
from admin_client.client import AdminClient
from admin_client.connection import Answer
from client_core.access import TLS, Access


def line(request: Message, address: str, access: Access, environment: Mapping[str, str]) -> str:
    """The command. A token never stands in it: it is taken from where it is kept."""
    tls = access.tls_now(environment)
    words = ["grpcurl"]
    if tls is None:
        words.append("-plaintext")
    else:
        flags = {"cacert": tls.ca, "cert": tls.cert, "key": tls.key, "authority": tls.server_name}
        for flag, value in flags.items():
            if value is not None:
                words += [f"-{flag}", shlex.quote(os.fspath(value))]
    if (token := _token(access, environment)) is not None:
        words += ["-H", f'"authorization: Bearer {token}"']
    body = json_format.MessageToJson(request, indent=None, ensure_ascii=False)
    words += ["-d", shlex.quote(body), *_target(address), rpcs.of(request).path]
    return " ".join(words)


class Printing(AdminClient):
    """Prints its first call instead of making it, and ends the command."""

    def __init__(
        self,
        address: str | None,
        tls: TLS | bool | None,
        token: str | None,
        token_file: str | None,
        profile_of_token: str = "",
    ) -> None:
        super().__init__(address, tls=tls, token=token)
        self._profile_of_token = profile_of_token
        self._environment = {**os.environ}
        if token_file is not None:
            self._environment |= {"TASKQ_TOKEN_FILE": token_file, "TASKQ_TOKEN": ""}

    def open(self) -> None:
        """Nothing: no call is made."""

    async def ask(self, request: Message, answer: type[Answer]) -> Answer:
        self._print(request)
        raise click.exceptions.Exit(0)

    async def stream(self, request: Message, answer: type[Answer]) -> AsyncIterator[Answer]:
        self._print(request)
        raise click.exceptions.Exit(0)
        yield answer()

    def _print(self, request: Message) -> None:
        click.echo(line(request, self.address, self._access, self._environment))
        if self._profile_of_token and self._access.token != os.environ.get("TASKQ_TOKEN", "").strip():
            click.echo(f"TASKQ_TOKEN must hold the token of profile {self._profile_of_token}", err=True)


def _token(access: Access, environment: Mapping[str, str]) -> str | None:
    if access.token or environment.get("TASKQ_TOKEN", "").strip():
        return "$TASKQ_TOKEN"
    if path := environment.get("TASKQ_TOKEN_FILE", ""):
        return f"$(cat {shlex.quote(path)})"
    return None


def _target(address: str) -> list[str]:
    """Where to; of several servers the first."""
    first = address.split(",")[0].strip()
    if first.startswith("unix:"):
        return ["-unix", shlex.quote(first.removeprefix("unix:"))]
    return [shlex.quote(first)]
