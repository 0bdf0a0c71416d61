"""A kind of task as a class: what is always so for it stands in the class, what differs is given when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Self, Unpack

from client_core import shapes
from client_core.errors import InvalidArgument
from client_core.times import Moment, Span
from scheduler_client.names import claim
from scheduler_client.recurring import Recurring
from scheduler_client.request import EnqueueOptions, TaskOptions, new_task
from scheduler_client.retry import Retry
from taskq.v1.scheduler_service_pb2 import NewTask


class TaskDefinition:
    """What `scheduler_client.Task` and `scheduler_client.sync.Task` share: everything but `enqueue()`.

    A subclass sets `name`, which no other may have; one without a name is abstract. Every other attribute may be set in
    the class or on the instance; their meanings are those of TaskOptions.
    """

    name: ClassVar[str] = ""
    """The capability that a processor must have."""

    config: Mapping[str, Any] = {}
    """The payload; keyword arguments override its keys."""

    Payload: ClassVar[type[Any] | None] = None
    """What the payload must be: a dataclass, TypedDict, pydantic model, msgspec struct or protobuf message."""

    priority: int | None = None
    requires: Sequence[str] | None = None
    run_timeout: Span | None = None
    expire_after: Span | None = None
    retry: Retry | None = None
    headers: Mapping[str, str] | None = None
    tags: Sequence[str] | None = None
    retention: Span | None = None

    # In the class, so that a subclass whose __init__ does not call ours works too.
    _payload: object = None
    _options: EnqueueOptions | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            if cls.name:
                raise TypeError(f"{cls.__qualname__} has the name {cls.name!r} of the class above it; must be its own")
        elif cls.name:
            claim(cls.name, cls)

    def __init__(self, payload: object = None, /, **config: Any) -> None:
        """Keyword arguments override or add keys of `config`; one positional argument is the payload itself instead."""
        if payload is not None and config:
            raise TypeError(f"{type(self).__qualname__} takes a payload or keyword arguments, not both")
        self._payload = payload
        if config:
            self.config = {**self.config, **config}

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({self._payload if self._payload is not None else dict(self.config)!r:.200})"

    def schedule(self) -> Moment | timedelta | Recurring | None:
        """When it may run: epoch seconds, an aware datetime, a timedelta from now; None means now.

        `at=` and `delay=` of an enqueue win over it. Or how it recurs, for `Scheduler.sync_schedules` to declare:
        `cron(...)`, `every(...)` or `on_dates(...)`; one that is enqueued besides runs now.
        """
        return None

    def options(self, **options: Unpack[EnqueueOptions]) -> Self:
        """The same task with these options, which win over its attributes; the options of an enqueue win over them."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._options = {**(self._options or {}), **options}
        return twin

    def to_message(self, **options: Unpack[EnqueueOptions]) -> NewTask:
        """The task as it is enqueued. Raises InvalidArgument that names every field at fault."""
        if not self.name:
            raise TypeError(f"{type(self).__qualname__} has no name; must have one to be enqueued")
        return new_task(self.name, self._checked_payload(), **self._all_options(options))

    def _all_options(self, options: EnqueueOptions) -> EnqueueOptions:
        merged: EnqueueOptions = {**self._attributes(), **(self._options or {}), **options}
        if merged.get("at") is None and merged.get("delay") is None:
            when = self.schedule()
            if isinstance(when, timedelta):
                merged["delay"] = when
            elif when is not None and not isinstance(when, Recurring):
                merged["at"] = when
        return merged

    def _attributes(self) -> TaskOptions:
        found = {name: value for name in TaskOptions.__annotations__ if (value := getattr(self, name)) is not None}
        return found  # type: ignore[return-value]

    def _checked_payload(self) -> object:
        value = self._payload if self._payload is not None else dict(self.config)
        if self.Payload is None or (isinstance(self.Payload, type) and _is_instance(value, self.Payload)):
            return value
        try:
            return shapes.build(self.Payload, value)
        except (ValueError, TypeError) as fault:
            raise InvalidArgument(
                f"task {self.name!r} cannot be enqueued", reason="INVALID_FIELDS", fields=[("payload", str(fault))]
            ) from fault


def _is_instance(value: object, kind: type[Any]) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # a TypedDict has no instances
        return False
