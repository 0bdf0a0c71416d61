"""A kind of task as a function: one definition for the scheduler, which enqueues calls of it, and for the processor."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, cast

from client_core.times import Moment, Span
from scheduler_client.names import claim
from scheduler_client.recurring import Recurring
from scheduler_client.request import EnqueueOptions, TaskOptions, new_task
from taskq.v1.scheduler_service_pb2 import NewTask

P = ParamSpec("P")
R = TypeVar("R")
Enqueued = TypeVar("Enqueued", covariant=True)

CONTEXT = "ctx"
"""The parameter that the processor fills in; it is no part of the payload."""


class NamedFunction(Protocol):
    """What a processor needs of a decorated function; `Processor(tasks=[...])` takes whatever has these two.

    The payload is a JSON object of the function's arguments by name, without `ctx`.
    """

    task_name: str
    function: Callable[..., Any]


class FunctionTask(Generic[P, R, Enqueued]):
    """A function whose calls can be enqueued. Called itself, it just runs the function, as a test wants."""

    def __init__(
        self,
        name: str,
        function: Callable[P, R],
        send: Callable[[NewTask], Enqueued],
        options: EnqueueOptions,
        recurring: Recurring | None = None,
    ) -> None:
        claim(name, function)
        self.task_name = name
        self.recurring = recurring
        self.function = function
        self.enqueue_options: EnqueueOptions = options
        self._signature = _payload_signature(function)
        self._send = send
        functools.update_wrapper(self, function)

    @property
    def name(self) -> str:
        """The capability that a processor must have."""
        return self.task_name

    def __repr__(self) -> str:
        return f"<FunctionTask {self.task_name} {self.function.__qualname__}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def enqueue(self, *args: Any, **kwargs: Any) -> Enqueued:
        """Enqueues a call. An argument that the function does not take is a TypeError, here and now."""
        return self._send(self.to_message(*args, **kwargs))

    def to_message(self, *args: Any, **kwargs: Any) -> NewTask:
        """A call as it is enqueued, for `enqueue_many`."""
        bound = self._signature.bind(*args, **kwargs)
        payload = {}
        for name, value in bound.arguments.items():
            if self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                payload.update(value)
            else:
                payload[name] = value
        return new_task(self.task_name, payload, **self.enqueue_options)

    def options(self, **options: Unpack[EnqueueOptions]) -> Self:
        """The same function with these options for its calls."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.enqueue_options = {**self.enqueue_options, **options}
        return twin

    def after(self, delay: Span) -> Self:
        """Its calls run this long after they are enqueued: `cook.after("5m").enqueue(dish="soup")`."""
        return self.options(delay=delay, at=None)

    def at(self, when: Moment) -> Self:
        """Its calls run at this moment: `cook.at(when).enqueue(dish="soup")`."""
        return self.options(at=when, delay=None)


def decorate(
    name: str, send: Callable[[NewTask], Enqueued], options: TaskOptions, recurring: Recurring | None = None
) -> Callable[[Callable[P, R]], FunctionTask[P, R, Enqueued]]:
    """The decorator of a scheduler whose tasks are sent by `send`."""

    def decorator(function: Callable[P, R]) -> FunctionTask[P, R, Enqueued]:
        return FunctionTask(name, function, send, cast(EnqueueOptions, options), recurring)

    return decorator


def _payload_signature(function: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise TypeError(f"{function.__qualname__}: parameter {parameter} has no name in a payload; must have one")
    return signature.replace(parameters=[each for name, each in signature.parameters.items() if name != CONTEXT])
