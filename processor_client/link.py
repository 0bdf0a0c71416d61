"""A channel of our own and the stub on it, opened anew when it seems wedged, or its server cannot serve.

A server that cannot reach its database can be reached all the same: of several, each new channel begins with the next.
"""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from taskq.v1.processor_service_pb2_grpc import ProcessorServiceStub

logger = logging.getLogger("taskq.processor")

ALLOWED_FAILURES = 5

ChannelT = TypeVar("ChannelT")


class Link(Generic[ChannelT]):
    """Counts failures in a row: a channel that has failed five times may be the reason itself."""

    def __init__(self, open_channel: Callable[[int], ChannelT]) -> None:
        """`open_channel` is told how many servers to skip."""
        self._open = open_channel
        self._opened = 1
        self._failures = 0
        self.channel = open_channel(0)
        self.stub = ProcessorServiceStub(self.channel)  # type: ignore[call-overload]  # it takes either kind

    def worked(self) -> None:
        """The server has answered."""
        self._failures = 0

    def failed(self, *, is_wedged: bool = False) -> ChannelT | None:
        """The server has not answered. Answers the channel to close, when a new one has taken its place."""
        self._failures += 1
        if self._failures < ALLOWED_FAILURES and not is_wedged:
            return None
        old = self.channel
        self._failures = 0
        try:
            self.channel = self._open(self._opened)
        except ValueError as fault:  # certificates that are being replaced
            logger.warning("the channel is not opened anew: %s", fault)
            return None
        self._opened += 1
        self.stub = ProcessorServiceStub(self.channel)  # type: ignore[call-overload]
        return old
