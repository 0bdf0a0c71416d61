"""Which of what is on offer a function asks for: worked out once, when it is registered, so that calls are cheap."""

import inspect
import typing
from collections.abc import Callable, Mapping, Set
from typing import Any

from client_core import shapes
from processor_client.context import Context

Call = Callable[[Callable[..., Any], Context], Any]
HookCall = Callable[[Callable[..., Any], Mapping[str, Any]], Any]

CONTEXT_NAMES = frozenset({"ctx", "context"})
PAYLOAD_NAMES = frozenset({"args", "payload", "config"})


class PayloadUndecodable(Exception):
    """The payload is not what the handler takes."""


def handler_call(function: Callable[..., Any], *, whole: Set[str] = frozenset()) -> Call:
    """Binds a handler: its context, and its other parameters to the keys of the payload's JSON object. A parameter
    named in `whole` takes the whole payload; so does one that stands alone and whose name is not a key."""
    parameters = _parameters(function)
    if not parameters:
        return _call_bare
    if len(parameters) == 1 and _is_context(parameters[0]) and parameters[0].kind is not parameters[0].KEYWORD_ONLY:
        return _call_with_context
    wanted = [p for p in parameters if not _is_context(p)]
    binding = _PayloadBinding(wanted, whole)

    def call(function: Callable[..., Any], context: Context) -> Any:
        positional: list[object] = []
        by_name = binding(context)
        for parameter in parameters:
            if _is_context(parameter):
                by_name[parameter.name] = context
            if parameter.kind is parameter.POSITIONAL_ONLY and parameter.name in by_name:
                positional.append(by_name.pop(parameter.name))
        return function(*positional, **by_name)

    return call


def hook_call(function: Callable[..., Any], offered: Set[str]) -> HookCall:
    """Binds a hook to those of `offered` that it declares; asking for anything else is a TypeError."""
    parameters = _parameters(function)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = [p.name for p in parameters if p.name in offered and p.kind is not p.POSITIONAL_ONLY]
    for parameter in parameters:
        if parameter.name not in names and parameter.default is parameter.empty and parameter.kind not in _VARIADIC:
            what, known = f"{function.__qualname__}() asks for {parameter.name!r}", ", ".join(sorted(offered))
            raise TypeError(f"{what}; must be among {known}")
    if takes_all:
        return lambda function, facts: function(**facts)
    return lambda function, facts: function(**{name: facts[name] for name in names})


class _PayloadBinding:
    """Spreads a payload over parameters."""

    def __init__(self, parameters: list[inspect.Parameter], whole: Set[str]) -> None:
        self._named = [p for p in parameters if p.kind not in _VARIADIC]
        self._takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._whole = {p.name for p in self._named if p.name in whole}
        self._from = [p.name for p in self._named if p.name not in self._whole]
        self._alone = len(self._named) == 1 and not self._takes_rest
        self._required = [p.name for p in self._named if p.default is p.empty and p.name not in self._whole]
        self._into = {p.name: p.annotation for p in self._named if _has_shape(p.annotation)}

    def __call__(self, context: Context) -> dict[str, Any]:
        if not self._named and not self._takes_rest:
            return {}
        try:
            bound = self._bind(context)
            for name in self._into.keys() & bound.keys():
                bound[name] = _shaped(self._into[name], bound[name])
            return bound
        except PayloadUndecodable:
            raise
        except Exception as error:
            raise PayloadUndecodable(f"{type(error).__name__}: {error}") from error

    def _bind(self, context: Context) -> dict[str, Any]:
        payload = context.payload
        bound: dict[str, Any] = dict.fromkeys(self._whole, payload)
        if len(bound) == len(self._named) and not self._takes_rest:
            return bound
        if isinstance(payload, dict) and not (self._alone and self._required and self._required[0] not in payload):
            return bound | self._from_keys(payload)
        if self._alone and context.raw_payload.data:
            return {self._named[0].name: payload}
        if self._required:
            what = type(payload).__name__ if context.raw_payload.data else "empty"
            raise PayloadUndecodable(f"the payload is {what}; must be {self._keys()}")
        return bound

    def _from_keys(self, payload: dict[str, Any]) -> dict[str, Any]:
        if missing := [name for name in self._required if name not in payload]:
            raise PayloadUndecodable(f"the payload has no {', '.join(missing)}; must be {self._keys()}")
        if self._takes_rest:
            return {key: value for key, value in payload.items() if key not in self._whole}
        return {name: payload[name] for name in self._from if name in payload}

    def _keys(self) -> str:
        return f"a JSON object with the keys {', '.join(self._required)}"


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Of a function or a bound method, with annotations that were written as text resolved where they can be."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - a name known to a type checker only; its parameter is taken as it comes
        return parameters
    return [p.replace(annotation=hints.get(p.name, p.annotation)) for p in parameters]


def _has_shape(annotation: Any) -> bool:
    # An annotation that is still text was not resolved.
    return annotation not in _PLAIN and not isinstance(annotation, str)


def _shaped(into: Any, value: Any) -> Any:
    if isinstance(into, type) and not typing.is_typeddict(into) and isinstance(value, into):
        return value
    return shapes.build(into, value)


def _is_context(parameter: inspect.Parameter) -> bool:
    if parameter.name in CONTEXT_NAMES or parameter.annotation in (Context, "Context"):
        return True
    # The original form: process(self, task).
    return parameter.name == "task" and parameter.annotation is parameter.empty


def _call_bare(function: Callable[..., Any], context: Context) -> Any:
    return function()


def _call_with_context(function: Callable[..., Any], context: Context) -> Any:
    return function(context)


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
# What JSON brings is passed as it comes.
_PLAIN = (inspect.Parameter.empty, Any, object, str, int, float, bool, bytes, list, dict, None)
