"""`taskq server-info`: what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from admin_client.output import Block, Column, Output, Rows, Table
from admin_client.verb import Verb
from admin_client.words import Words

if TYPE_CHECKING:
    from admin_client.client import AdminClient

_SERVERS: Final = Table(
    [
        Column("SERVER", lambda server, words: server.name),
        Column("SINCE", lambda server, words: words.at(server, "start_time")),
    ],
    name=lambda server: str(server.name),
    nothing="",
)
_SETTINGS: Final = Table(
    [Column("SETTING", lambda pair, words: pair[0]), Column("VALUE", lambda pair, words: pair[1], is_long=True)],
    name=lambda pair: str(pair[0]),
    nothing="",
)


@click.command("server-info", cls=Verb)
async def server_info(client: AdminClient, output: Output) -> None:
    """Tell what runs, on what database, beside which other servers, by which settings."""
    answer = await client.get_server_info()
    output.show(answer, _view, answer.version)


def _view(answer: Any, words: Words) -> list[Block]:
    database = answer.database
    return [
        [
            ("version", answer.version),
            ("database", f"{database.kind} {database.version}, schema {database.schema_version}"),
            ("running since", words.at(answer, "start_time")),
            ("python", answer.python_version),
            ("grpc", answer.grpc_version),
            ("api", ", ".join(answer.api_versions)),
        ],
        Rows("Servers", answer.servers, _SERVERS),
        Rows("Settings", sorted(answer.settings.items()), _SETTINGS),
    ]
