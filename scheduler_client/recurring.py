"""How a task recurs: `cron()`, `every()` and `on_dates()`, which a Task's `schedule()` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final, Literal, TypedDict, Unpack

from client_core.errors import InvalidArgument
from client_core.times import Moment, Span, to_duration, to_timestamp
from taskq.v1.schedule_service_pb2 import CatchUp, DstPolicy, Overlap, Schedule

_OVERLAPS: Final = {
    "skip": Overlap.OVERLAP_SKIP,
    "buffer_one": Overlap.OVERLAP_BUFFER_ONE,
    "buffer_all": Overlap.OVERLAP_BUFFER_ALL,
    "cancel_other": Overlap.OVERLAP_CANCEL_OTHER,
    "allow_all": Overlap.OVERLAP_ALLOW_ALL,
}
_CATCH_UPS: Final = {
    "skip": CatchUp.CATCH_UP_SKIP,
    "last": CatchUp.CATCH_UP_LAST,
    "first": CatchUp.CATCH_UP_FIRST,
    "all": CatchUp.CATCH_UP_ALL,
}
_DST_POLICIES: Final = {
    "run_once": DstPolicy.DST_POLICY_RUN_ONCE,
    "skip": DstPolicy.DST_POLICY_SKIP,
    "shift": DstPolicy.DST_POLICY_SHIFT,
}


class RecurringOptions(TypedDict, total=False):
    """What happens at the edges. None is as good as absent: the server's defaults hold. docs/schedules.md says more.

    overlap            while a task of the schedule is unfinished: "skip" (default), "buffer_one", "buffer_all",
                       "cancel_other", "allow_all"
    max_buffered       how many may wait with "buffer_all"; default 100
    catch_up           of times that passed while no server ran, or it was paused: "skip", "last" (default), "first",
                       "all"
    catch_up_window    older ones are missed in any case; default seven days
    jitter             each is due up to so much later, always the same for that time, never past the next
    start, end         none before; none at or after
    except_on          days without a firing: dates, "2026-12-25", or "2026-12-24/2026-12-26"
    except_crons       nor at times that one of these matches: "* * * * SAT,SUN"
    dst                of a time of day that the clocks jump over: "run_once" (default), "skip", "shift"
    max_firings        it ends after so many
    """

    overlap: Literal["skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"] | None
    max_buffered: int | None
    catch_up: Literal["skip", "last", "first", "all"] | None
    catch_up_window: Span | None
    jitter: Span | None
    start: Moment | None
    end: Moment | None
    except_on: Sequence[date | str] | None
    except_crons: Sequence[str] | None
    dst: Literal["run_once", "skip", "shift"] | None
    max_firings: int | None


class Recurring:
    """When something recurs, and what happens at the edges. Made by `cron()`, `every()` and `on_dates()`.

    `args` are the keyword arguments of each firing's task. The server keeps and fires it once it was declared by
    `Scheduler.sync_schedules`.
    """

    __slots__ = ("_rule", "args")

    def __init__(self, rule: Schedule, args: Mapping[str, Any] | None) -> None:
        self._rule = rule
        self.args: dict[str, Any] = dict(args or {})

    def __repr__(self) -> str:
        return f"<Recurring {' '.join(str(self._rule).split()):.200}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recurring) and (self._rule, self.args) == (other._rule, other.args)

    __hash__ = None  # type: ignore[assignment]  # its arguments may be anything

    def to_message(self) -> Schedule:
        """A schedule of the wire without a name and a task."""
        rule = Schedule()
        rule.CopyFrom(self._rule)
        return rule


def cron(
    *expressions: str, tz: str = "UTC", args: Mapping[str, Any] | None = None, **options: Unpack[RecurringOptions]
) -> Recurring:
    """At the times that any of these expressions means in that zone: `cron("0 9 * * MON-FRI", tz="Europe/Paris")`.

    Five fields, or six of which the first are seconds; `@daily` and the like; `H` for a number of the schedule's own.
    The server checks them, when they are declared. Raises InvalidArgument, which names every field at fault.
    """
    rule = Schedule()
    rule.recurrence.crons.extend(expressions)
    rule.recurrence.time_zone = tz
    faults = [] if expressions else [("crons", "is empty; must be at least one expression")]
    return _recurring(rule, args, options, faults)


def every(
    period: Span,
    *,
    phase: Span = 0,
    tz: str = "UTC",
    args: Mapping[str, Any] | None = None,
    **options: Unpack[RecurringOptions],
) -> Recurring:
    """At each multiple of a period since 1970, shifted by `phase`: `every("10m")`, `every("1d", phase="9h")`.

    At least a second. `tz` is that of `except_on` and `except_crons`. Raises InvalidArgument, as `cron`.
    """
    rule = Schedule()
    rule.recurrence.time_zone = tz
    faults: list[tuple[str, str]] = []
    _write(rule, "period", period, lambda rule, value: rule.recurrence.interval.CopyFrom(to_duration(value)), faults)
    _write(rule, "phase", phase, lambda rule, value: rule.recurrence.phase.CopyFrom(to_duration(value)), faults)
    return _recurring(rule, args, options, faults)


def on_dates(
    *moments: Moment, tz: str = "UTC", args: Mapping[str, Any] | None = None, **options: Unpack[RecurringOptions]
) -> Recurring:
    """At these moments. Raises InvalidArgument, as `cron`."""
    rule = Schedule()
    rule.recurrence.time_zone = tz
    faults = [] if moments else [("dates", "is empty; must be at least one moment")]
    for i, moment in enumerate(moments):
        _write(rule, f"dates[{i}]", moment, lambda rule, at: rule.recurrence.dates.append(to_timestamp(at)), faults)
    return _recurring(rule, args, options, faults)


def _recurring(
    rule: Schedule, args: Mapping[str, Any] | None, options: RecurringOptions, faults: list[tuple[str, str]]
) -> Recurring:
    if unknown := sorted(options.keys() - _WRITERS.keys()):
        raise TypeError(f"{', '.join(unknown)}: no such option; must be among {', '.join(_WRITERS)}")
    for name, value in options.items():
        if value is not None:
            _write(rule, name, value, _WRITERS[name], faults)
    if faults:
        raise InvalidArgument("it cannot recur like this", reason="INVALID_FIELDS", fields=faults)
    return Recurring(rule, args)


def _write(
    rule: Schedule, field: str, value: Any, write: Callable[[Schedule, Any], object], faults: list[tuple[str, str]]
) -> None:
    try:
        write(rule, value)
    except (ValueError, TypeError) as fault:
        faults.append((field, str(fault)))


def _among(values: Mapping[str, Any], value: object) -> Any:
    if not isinstance(value, str) or value not in values:
        raise ValueError(f"is {value!r}; must be one of {', '.join(values)}")
    return values[value]


def _texts(value: Sequence[date | str]) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"is {value!r:.100}; must be a list")
    return [each if isinstance(each, str) else each.isoformat() for each in value]


_WRITERS: Final[dict[str, Callable[[Schedule, Any], object]]] = {
    "overlap": lambda rule, value: setattr(rule, "overlap", _among(_OVERLAPS, value)),
    "max_buffered": lambda rule, value: setattr(rule, "max_buffered", value),
    "catch_up": lambda rule, value: setattr(rule, "catch_up", _among(_CATCH_UPS, value)),
    "catch_up_window": lambda rule, value: rule.catch_up_window.CopyFrom(to_duration(value)),
    "jitter": lambda rule, value: rule.recurrence.jitter.CopyFrom(to_duration(value)),
    "start": lambda rule, value: rule.recurrence.start_time.CopyFrom(to_timestamp(value)),
    "end": lambda rule, value: rule.recurrence.end_time.CopyFrom(to_timestamp(value)),
    "except_on": lambda rule, value: rule.recurrence.excluded_dates.extend(_texts(value)),
    "except_crons": lambda rule, value: rule.recurrence.excluded_crons.extend(_texts(value)),
    "dst": lambda rule, value: setattr(rule.recurrence, "dst_policy", _among(_DST_POLICIES, value)),
    "max_firings": lambda rule, value: setattr(rule, "max_firings", value),
}
