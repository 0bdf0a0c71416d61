"""The servicers' methods, called in this process: what a page may ask is what its reader may call by gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from taskq_server.access import Access, Caller
from taskq_server.core.errors import ReadOnly, Unauthenticated
from taskq_server.core.origin import Source
from taskq_server.core.rights import Need
from taskq_server.rpc import origin
from taskq_server.rpc.auth import NEEDS
from taskq_server.rpc.server import answered

PACKAGE = "taskq.v1"
_LOOKS = Need.NOTHING, Need.A_CREDENTIAL, Need.TASKS, Need.READ
"""What calls need that change nothing."""
MOST_SECONDS = 20.0
"""A page waits no longer for one answer."""


class NotServed(Exception):
    """No servicer of this server answers the method."""

    def __init__(self, method: str) -> None:
        self.method = method
        super().__init__(f"{method} is not served by this server; a newer one may serve it")


class Calls:
    """Every method of these servicers, by `Service/Method`; of two that answer the same, the first."""

    def __init__(self, servicers: Iterable[object], access: Access, *, is_read_only: bool = False) -> None:
        self._access = access
        self._is_read_only = is_read_only
        self.methods: dict[str, MethodDescriptor] = {}
        self._behaviours: dict[str, Callable[[Any], Any]] = {}
        self._tellers: dict[str, origin.Teller] = {}
        """Of those that the audit has."""
        for servicer, method in answered(servicers):
            name = f"{method.containing_service.name}/{method.name}"
            self._behaviours.setdefault(name, getattr(servicer, method.name))
            self.methods.setdefault(name, method)
            if origin.is_audited(method):
                self._tellers.setdefault(name, origin.Teller(method, access))

    def serves(self, method: str) -> bool:
        return method in self._behaviours

    def may(self, caller: Caller, method: str) -> bool:
        """Whether this caller may call it at all."""
        return _need(method) in caller.rights.meets and not self._is_closed(method)

    def _is_closed(self, method: str) -> bool:
        return self._is_read_only and _need(method) not in _LOOKS

    async def unary(
        self, caller: Caller, method: str, request: Message, peer: str, request_id: str, reason: str = ""
    ) -> Any:
        """The answer; NotServed, a TaskqError, or TimeoutError. `peer` is the reader's address, for the audit, as is
        `reason` where the request has no field for it."""
        behaviour: Callable[[Any], Awaitable[Message]] = self._enter(caller, method)
        if (teller := self._tellers.get(method)) is not None:
            teller.tell(request, source=Source.DASHBOARD, peer=peer, request_id=request_id, reason=reason)
        async with asyncio.timeout(MOST_SECONDS):
            return await behaviour(request)

    def stream(self, caller: Caller, method: str, request: Message) -> AsyncIterator[Any]:
        """The answers, one after the other."""
        answers: AsyncIterator[Any] = self._enter(caller, method)(request)
        return answers

    def _enter(self, caller: Caller, method: str) -> Callable[[Any], Any]:
        if not self._access.holds(caller):  # it may have ended between the pages of a file
            raise Unauthenticated("the token that was shown to sign in does not hold any more")
        caller.must_meet(_need(method))
        if self._is_closed(method):
            raise ReadOnly
        if method not in self._behaviours:
            raise NotServed(method)
        self._access.enter(caller)
        return self._behaviours[method]


def _need(method: str) -> Need:
    return NEEDS[f"/{PACKAGE}.{method}"]
