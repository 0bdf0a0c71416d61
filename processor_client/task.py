"""The class form of a handler: what a task is called, how it is processed, what follows."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from processor_client.context import Context

Executor = Literal["thread", "process"]


class Task:
    """Subclass it and define `process`; `success` and `failure` when they are wanted. Each attempt gets an object of
    its own, so attributes set in `process` are there in its hooks (not with `executor="process"`).

    A method is passed what it declares and nothing else:
    `process`: `ctx`, `args` (the whole payload, decoded into its annotation), or keys of the payload by name;
    `success`, once the server has accepted the result: `ctx`, `result`;
    `failure`, after every failed attempt: `ctx`, `error`, `will_retry` (False: it was the last one).
    A plain method runs in a thread, an `async` one on the loop. What a hook raises is logged and changes nothing.
    """

    name: ClassVar[str] = ""
    # The task names that it runs; empty means its own `name`. As a mapping, each name leads to its implementation: the
    # name of a method, a function, or another Task class.
    CAPABILITIES: ClassVar[Sequence[str] | Mapping[str, Any]] = ()
    # The most unreported attempts of each capability at a time; 0 means that only the processor's `concurrency` holds.
    max_in_flight: ClassVar[int] = 0
    # "process" runs `process` in a child process, which is killed when the attempt is to stop.
    executor: ClassVar[Executor | None] = None

    ctx: Context

    @property
    def payload(self) -> Any:
        """What was enqueued, decoded."""
        return self.ctx.payload

    def process(self, *args: Any, **kwargs: Any) -> Any:
        """Does the work; what it returns is the task's result."""
        raise NotImplementedError(f"{type(self).__name__} has no process()")
