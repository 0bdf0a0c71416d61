"""Which server it is, said before the first call that changes something there."""

from __future__ import annotations

from typing import Any

import click
from google.protobuf.message import Message

from admin_client import rpcs
from admin_client.client import AdminClient
from admin_client.connection import Answer


class Announcing(AdminClient):
    """Says `profile, address` on stderr: for a profile that nobody has named, and that its user may have forgotten."""

    def __init__(self, profile: str, address: str | None, **how: Any) -> None:
        super().__init__(address, **how)
        self._profile = profile

    async def ask(self, request: Message, answer: type[Answer]) -> Answer:
        if self._profile and rpcs.changes(request):
            click.echo(f"{self._profile}, {self.address}", err=True)
            self._profile = ""
        return await super().ask(request, answer)
