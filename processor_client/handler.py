"""What runs the tasks of one name: a function or a Task class, made ready to be called."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from processor_client.arguments import PAYLOAD_NAMES, handler_call, hook_call
from processor_client.context import Context
from processor_client.task import Executor, Task

Facts = Mapping[str, Any]
SUCCESS_OFFERS = frozenset({"ctx", "context", "task", "result"})
FAILURE_OFFERS = frozenset({"ctx", "context", "task", "error", "will_retry"})


@dataclass(frozen=True, slots=True)
class Hook:
    """Runs after an attempt. `call` answers an awaitable when `is_async`."""

    call: Callable[[Context, Facts], Any]
    is_async: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a child process finds a handler."""

    module: str
    qualname: str
    name: str


@dataclass(frozen=True, slots=True)
class Handler:
    """Runs the tasks of one name. `call` answers an awaitable when `is_async`."""

    name: str
    call: Callable[[Context], Any]
    is_async: bool
    executor: Executor | None = None
    max_in_flight: int = 0
    success: Hook | None = None
    failure: Hook | None = None
    reference: Reference | None = field(default=None, compare=False)


@runtime_checkable
class NamedFunction(Protocol):
    """A function that a scheduler has declared: its task's name, and the function itself."""

    task_name: str
    function: Callable[..., Any]


def handlers_of(source: object) -> Iterator[Handler]:
    """The handlers that a Task class or a declared function brings."""
    if isinstance(source, type) and issubclass(source, Task):
        yield from _of_class(source)
    elif isinstance(source, NamedFunction) and not isinstance(source, type):
        limit, executor = getattr(source, "max_in_flight", 0) or 0, getattr(source, "executor", None)
        yield of_function(source.task_name, source.function, max_in_flight=limit, executor=executor)
    else:
        raise TypeError(f"{source!r} is no handler; must be a Task subclass or have task_name and function")


def of_function(
    name: str, function: Callable[..., Any], *, max_in_flight: int = 0, executor: Executor | None = None
) -> Handler:
    """The handler that a plain function is."""
    bound = handler_call(function)
    is_async = _is_async(function)
    reference = _reference(function, name, executor, is_async)

    def call(context: Context) -> Any:
        return bound(function, context)

    return Handler(name, call, is_async, executor, max_in_flight, reference=reference)


def _of_class(cls: type[Task]) -> Iterator[Handler]:
    if (needed := _needed_by_init(cls)) is not None:
        raise TypeError(f"{cls.__name__}() needs {needed}; must be callable without arguments, once per attempt")
    for name, implementation in _implementations(cls).items():
        if isinstance(implementation, type) and issubclass(implementation, Task):
            yield _of_method(name, implementation, "process")
        elif isinstance(implementation, str):
            yield _of_method(name, cls, implementation)
        elif callable(implementation):
            handler = of_function(name, implementation, max_in_flight=cls.max_in_flight, executor=cls.executor)
            yield _with_hooks(handler, cls)
        else:
            raise TypeError(f"{cls.__name__} runs {name!r} by {implementation!r}; must be a method name or a function")


def _implementations(cls: type[Task]) -> Mapping[str, Any]:
    declared: Sequence[str] | Mapping[str, Any] = cls.CAPABILITIES or ([cls.name] if cls.name else [])
    if isinstance(declared, str) or not declared:
        raise TypeError(f"{cls.__name__} names no task; must have a name or a list of CAPABILITIES")
    return declared if isinstance(declared, Mapping) else dict.fromkeys(declared, "process")


def _of_method(name: str, cls: type[Task], method: str) -> Handler:
    function = getattr(cls, method, None)
    if function is None or function is Task.process:
        raise TypeError(f"{cls.__name__} has no {method}(), which runs {name!r}")
    bound = handler_call(getattr(_blank(cls), method), whole=PAYLOAD_NAMES)

    def call(context: Context) -> Any:
        return bound(getattr(_instance(cls, context), method), context)

    executor = cls.executor
    is_async = _is_async(function)
    reference = _reference(cls, name, executor, is_async)
    handler = Handler(name, call, is_async, executor, cls.max_in_flight, reference=reference)
    return _with_hooks(handler, cls)


def _with_hooks(handler: Handler, cls: type[Task]) -> Handler:
    success, failure = _hook(cls, "success", SUCCESS_OFFERS), _hook(cls, "failure", FAILURE_OFFERS)
    return Handler(
        handler.name,
        handler.call,
        handler.is_async,
        handler.executor,
        handler.max_in_flight,
        success,
        failure,
        handler.reference,
    )


def _hook(cls: type[Task], method: str, offered: frozenset[str]) -> Hook | None:
    function = getattr(cls, method, None)
    if function is None:
        return None
    bound = hook_call(getattr(_blank(cls), method), offered)

    def call(context: Context, facts: Facts) -> Any:
        known = {"ctx": context, "context": context, "task": context, **facts}
        return bound(getattr(_instance(cls, context), method), known)

    return Hook(call, _is_async(function))


def _instance(cls: type[Task], context: Context) -> Task:
    if type(context.instance) is not cls:
        context.instance = cls()
        context.instance.ctx = context
    instance: Task = context.instance
    return instance


def _blank(cls: type[Task]) -> Task:
    return cls.__new__(cls)


def _needed_by_init(cls: type[Task]) -> str | None:
    for parameter in inspect.signature(cls).parameters.values():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic:
            return parameter.name
    return None


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _reference(source: Any, name: str, executor: Executor | None, is_async: bool) -> Reference | None:
    """Where a child finds the source of a handler; None when none has to."""
    if executor not in (None, "thread", "process"):
        raise ValueError(f"the executor of {name!r} is {executor!r}; must be 'thread', 'process' or None")
    if executor == "thread" and is_async:
        raise TypeError(f"{name!r} is an async function; must be a plain one to run in a thread")
    if executor != "process":
        return None
    module, qualname = getattr(source, "__module__", None), getattr(source, "__qualname__", "<unnamed>")
    if module is None or "<" in qualname:
        raise TypeError(f"{name!r} runs in a process by {source!r}; must be at the top level of a module")
    return Reference(module, qualname, name)
