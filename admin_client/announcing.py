"""What comes before the first call that changes something."""

from __future__ import annotations

from typing import Any

import click
from google.protobuf.message import Message

from admin_client import rpcs
from admin_client.client import AdminClient
from admin_client.connection import Answer
from admin_client.output import Output


class Announcing(AdminClient):
    """Before that call, fields that could not be shown of its answer are refused, and `profile, address` is said on
    stderr: for a profile that nobody has named, and that its user may have forgotten."""

    def __init__(self, output: Output, profile: str, address: str | None, **how: Any) -> None:
        super().__init__(address, **how)
        self._output = output
        self._profile = profile
        self._has_changed = False

    async def ask(self, request: Message, answer: type[Answer]) -> Answer:
        if not self._has_changed and rpcs.changes(request):
            self._output.expect(answer.DESCRIPTOR)
            if self._profile:
                click.echo(f"{self._profile}, {self.address}", err=True)
            self._has_changed = True
        return await super().ask(request, answer)
