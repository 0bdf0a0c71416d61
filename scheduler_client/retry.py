"""How often and when a failed task is tried again: a policy that travels with the task and is kept by the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from client_core.times import Span, to_duration, to_microseconds
from taskq.v1.task_pb2 import RetryPolicy

_JITTER = {
    "full": RetryPolicy.JITTER_FULL,
    "equal": RetryPolicy.JITTER_EQUAL,
    "none": RetryPolicy.JITTER_NONE,
}
_LONGEST_DELAY_US = 30 * 86_400_000_000


@dataclass(frozen=True)
class Retry:
    """A policy; what is left None takes the server's default. ValueError names the field that breaks a rule.

    max_attempts           how many attempts may fail: 1 to 1,000 (default 5)
    initial_delay          before the second attempt: 0 to 30 days (default 1 s)
    multiplier             of each further delay: 1 to 100 (default 2)
    max_delay              the longest delay: up to 30 days (default 10 min)
    jitter                 "full": uniform from 0 to the delay (default); "equal": from half of it; "none": as computed
    non_retryable_errors   error types that end the task at once: at most 64
    """

    max_attempts: int | None = None
    initial_delay: Span | None = None
    multiplier: float | None = None
    max_delay: Span | None = None
    jitter: Literal["full", "equal", "none"] | None = None
    non_retryable_errors: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.to_message()

    def to_message(self) -> RetryPolicy:
        """The wire's form."""
        message = RetryPolicy()
        if self.max_attempts is not None:
            message.max_attempts = int(_within("max_attempts", self.max_attempts, 1, 1_000))
        if self.multiplier is not None:
            message.multiplier = _within("multiplier", self.multiplier, 1, 100)
        for name in ("initial_delay", "max_delay"):
            span: Span | None = getattr(self, name)
            if span is not None:
                getattr(message, name).CopyFrom(to_duration(_delay(name, span)))
        if self.jitter is not None:
            if self.jitter not in _JITTER:
                raise ValueError(f"jitter is {self.jitter!r}; must be one of {', '.join(_JITTER)}")
            message.jitter = _JITTER[self.jitter]
        message.non_retryable_errors.extend(_error_types(self.non_retryable_errors))
        return message


def _within(name: str, value: float, low: int, high: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; must be from {low} to {high:,}")
    return value


def _delay(name: str, span: Span) -> Span:
    try:
        microseconds = to_microseconds(span)
    except (ValueError, TypeError) as fault:
        raise ValueError(f"{name} {fault}") from fault
    if not 0 <= microseconds <= _LONGEST_DELAY_US:
        raise ValueError(f"{name} is {span!r}; must be from 0 to 30 days")
    return span


def _error_types(names: Sequence[str]) -> Sequence[str]:
    if isinstance(names, str) or len(names) > 64 or not all(isinstance(n, str) and 1 <= len(n) <= 256 for n in names):
        raise ValueError(f"non_retryable_errors is {names!r:.100}; must be at most 64 texts of 1 to 256 characters")
    return names
