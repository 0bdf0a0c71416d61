"""The connection by which an administrator's calls are made; lists go on by themselves, page after page."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any, Final, Self, TypeVar
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf.message import Message

from admin_client import rpcs
from client_core.access import TLS, Access, PathLike
from client_core.channel import address_from_environment, open_channel
from client_core.errors import DeadlineExceeded, TaskqError, Unavailable, from_rpc_error
from client_core.home import Home
from client_core.knock import explain
from client_core.times import Span, to_seconds

MOST_IN_A_PAGE: Final = 1_000

Answer = TypeVar("Answer", bound=Message)


class Connection:
    """A connection to one server, opened at the first call. Each method of AdminClient is one of these calls."""

    def __init__(
        self,
        address: str | None = None,
        *,
        tls: TLS | bool | None = None,
        tls_ca: PathLike | None = None,
        token: str | None = None,
        timeout: Span = 10.0,
        user_agent: str | None = None,
    ) -> None:
        self.address = address or address_from_environment()
        self.request_id = ""
        self._access = Access(tls, tls_ca, token)
        self._timeout = to_seconds(timeout)
        self._further = (("grpc.primary_user_agent", user_agent),) if user_agent else ()
        self._home = Home("this client")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def open(self) -> None:
        """Opens the channel, as the first call would. ValueError for files, a token, addresses that cannot be used."""
        self._channel  # noqa: B018

    async def close(self) -> None:
        """Disconnects."""
        if (channel := self.__dict__.pop("_channel", None)) is not None:
            await channel.close()

    async def ask(self, request: Message, answer: type[Answer]) -> Answer:
        """Asks what this message asks; `answer` is the class of the answer. Raises a TaskqError."""
        method = self._channel.unary_unary(
            f"/{rpcs.of(request).path}", type(request).SerializeToString, answer.FromString
        )
        try:
            reply: Answer = await method(request, timeout=self._timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            raise await self._why(error) from None
        return reply

    async def stream(self, request: Message, answer: type[Answer]) -> AsyncIterator[Answer]:
        """The same of a call that answers again and again."""
        method = self._channel.unary_stream(
            f"/{rpcs.of(request).path}", type(request).SerializeToString, answer.FromString
        )
        call = method(request, metadata=self._metadata())
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise await self._why(error) from None
        finally:
            call.cancel()

    async def pages(self, request: Any, answer: type[Answer], limit: int | None) -> AsyncIterator[Answer]:
        """Page after page, of at most `limit` in all. A page may hold less than was asked for, and not be the last."""
        left = limit
        while True:
            request.page_size = MOST_IN_A_PAGE if left is None else min(left, MOST_IN_A_PAGE)
            page: Any = await self.ask(request, answer)
            yield page
            if left is not None:
                left -= len(rpcs.items(page))
            if not page.next_page_token or left == 0:
                return
            request.page_token = page.next_page_token

    @functools.cached_property
    def _channel(self) -> grpc.aio.Channel:
        self._home.check()
        return open_channel(self.address, further=self._further, access=self._access)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        self.request_id = str(uuid4())
        return (("x-request-id", self.request_id),)

    async def _why(self, error: grpc.RpcError) -> TaskqError:
        known = from_rpc_error(error)
        if isinstance(known, DeadlineExceeded) and self._channel.get_state() is not grpc.ChannelConnectivity.READY:
            return Unavailable(f"no connection to {self.address} within {self._timeout:g} s")  # nothing was sent
        return (await explain(known, self.address, self._access))[0]
