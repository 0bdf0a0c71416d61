"""Who takes what a running handler says, and what the handler gets for it."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol

from taskq.v1.task_pb2 import Payload

if TYPE_CHECKING:
    from processor_client.context import Context


class Listener(Protocol):
    """Called in the thread that the handler runs in."""

    def progressed(self, context: "Context", fraction: float, message: str) -> None:
        """The attempt is `fraction` done."""

    def saved(self, context: "Context", checkpoint: Payload) -> None:
        """Later attempts start from `checkpoint`."""


class Told:
    """Awaitable and already done, so that `progress()` reads the same in async code and in threads."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


TOLD = Told()
