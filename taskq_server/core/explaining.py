"""Why a task is not running: facts in, reasons out, as a colleague would say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from taskq_server.core.history import in_short
from taskq_server.core.recurring import in_rfc3339
from taskq_server.core.task import EXPIRED, Task, TaskState

MOST_NAMES = 10
"""That are spelt out."""
MOST_LISTED = 100
"""As data."""


class ReasonKind(IntEnum):
    """Why a task is where it is; numbers as on the wire."""

    FINISHED = 1
    RUNNING = 2
    NOT_DUE = 3
    WAITS_FOR_RETRY = 4
    CAPABILITY_PAUSED = 5
    NO_PROCESSOR = 6
    DRAINED = 7
    REQUIREMENTS_NOT_MET = 8
    NO_CREDITS = 9
    BEHIND_OTHERS = 10
    NO_STREAM = 11
    ABOUT_TO_RUN = 12
    EXPIRES = 13
    CORRUPT = 14
    KEY_HELD = 15
    HOLDS_KEY = 16


@dataclass(slots=True)
class Reason:
    """One of them, in words and as data."""

    kind: ReasonKind
    text: str
    facts: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Of processors, or of the capabilities that are known."""


@dataclass(slots=True)
class Able:
    """A processor that lives and has the task's name."""

    session_seq: int
    processor_name: str
    labels: dict[str, str]
    limit: int
    """The most tasks of that name at a time."""
    free: int
    """How many more of them it could take now."""
    is_drained: bool = False
    streams: bool = True
    """A stream is open on which it could be given one, as far as is known."""
    server_seq: int = 0
    server_lives: bool = True


@dataclass(frozen=True, slots=True)
class KeyHold:
    """Who holds the deduplication key of a task."""

    key: str
    scope: str
    holder: str
    """The id of a task, as text."""
    is_itself: bool
    state: TaskState | None
    """Of the holder; None when it is gone, and its key is held for a while nonetheless."""
    until_us: int | None
    """Held at least as long; None for no such time."""
    until_finished: bool


@dataclass(slots=True)
class Facts:
    """What is known of a task and of those who could run it."""

    now_us: int
    task: Task
    is_corrupt: bool = False
    run_deadline_us: int | None = None
    paused_us: int | None = None
    """Since when its name is paused."""
    pause_note: str = ""
    able: list[Able] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    """The names that processors that live have."""
    ahead: int = 0
    """Tasks that are due, come before it and want the same processors."""
    ahead_is_partial: bool = False
    """There are more."""
    key_hold: KeyHold | None = None
    """None when it has no key, and when nobody holds it now."""


@dataclass(slots=True)
class Explanation:
    """Why a task is where it is."""

    state: TaskState
    summary: str
    reasons: list[Reason]


def explain(facts: Facts) -> Explanation:
    """What must change first comes first."""
    if facts.task.state.finished:
        reasons = [_finished(facts)]
    elif facts.task.state is TaskState.RUNNING:
        reasons = [_running(facts)]
    else:
        reasons = list(_waiting(facts))
    reasons += _key(facts)
    for reason in reasons:
        reason.names = reason.names[:MOST_LISTED]
    summary = "; ".join(reason.text for reason in reasons)
    return Explanation(facts.task.state, f"{summary[:1].upper()}{summary[1:]}.", reasons)


def _finished(facts: Facts) -> Reason:
    task = facts.task
    finish_us = facts.now_us if task.finish_time_us is None else task.finish_time_us
    ago = f"{_span(facts.now_us - finish_us)} ago"
    found = {"finish_time": in_rfc3339(finish_us), "attempt": str(task.attempt)}
    if task.state is TaskState.SUCCEEDED:
        text = f"it succeeded {ago}, on {task.processor_name}, in attempt {task.attempt}"
    elif task.state is TaskState.CANCELLED:
        text = f"it was cancelled {ago}"
    elif task.last_failure is None:
        text = f"it failed {ago}"
    elif task.last_failure.error_type == EXPIRED:
        text = f"it failed {ago}: it was not started before its expire_time"
        found["error_type"] = EXPIRED
    else:
        text = f"it failed {ago}, with {_attempts(task)}: {in_short(task.last_failure)}"
        found["error_type"] = task.last_failure.error_type
    return Reason(ReasonKind.FINISHED, text, found)


def _running(facts: Facts) -> Reason:
    task = facts.task
    lease_us = facts.now_us if task.lease_time_us is None else task.lease_time_us
    found = {"attempt": str(task.attempt), "lease_time": in_rfc3339(lease_us)}
    spent = _span(max(0, facts.now_us - lease_us))
    text = f"it has run on {task.processor_name} for {spent}, in attempt {task.attempt}"
    if facts.run_deadline_us is not None:
        found["run_deadline"] = in_rfc3339(facts.run_deadline_us)
        text += f", and will be ended in {_span(max(0, facts.run_deadline_us - facts.now_us))}"
    return Reason(ReasonKind.RUNNING, text, found, [task.processor_name])


def _waiting(facts: Facts) -> Iterator[Reason]:
    found = [*_in_itself(facts), *_in_others(facts)]
    yield from found
    if not found:
        yield Reason(ReasonKind.ABOUT_TO_RUN, "nothing keeps it: it is about to be dispatched")
    yield from _expiry(facts)


def _in_itself(facts: Facts) -> Iterator[Reason]:
    task, name = facts.task, facts.task.route.name
    if task.due_time_us > facts.now_us:
        span, found = _span(task.due_time_us - facts.now_us), {"due_time": in_rfc3339(task.due_time_us)}
        if task.failed_attempts:
            found |= {
                "failed_attempts": str(task.failed_attempts),
                "max_attempts": str(task.retry_policy.max_attempts),
            }
            why = "" if task.last_failure is None else f": {in_short(task.last_failure)}"
            text = f"it waits for its next attempt, in {span}, with {_attempts(task)}{why}"
            yield Reason(ReasonKind.WAITS_FOR_RETRY, text, found)
        else:
            yield Reason(ReasonKind.NOT_DUE, f"it is due in {span}", found)
    if facts.is_corrupt:
        text = "its stored payload is corrupt: it will fail as CORRUPT instead of being run"
        yield Reason(ReasonKind.CORRUPT, text)
    if facts.paused_us is not None:
        note = f": {facts.pause_note}" if facts.pause_note else ""
        since = f"{in_rfc3339(facts.paused_us)}, for {_span(facts.now_us - facts.paused_us)} now"
        found = {"name": name, "paused_since": in_rfc3339(facts.paused_us), "note": facts.pause_note}
        yield Reason(ReasonKind.CAPABILITY_PAUSED, f"{name} is paused since {since}{note}", found)


def _in_others(facts: Facts) -> Iterator[Reason]:
    task, name = facts.task, facts.task.route.name
    able = facts.able
    if not able:
        known = f"known are: {_some(facts.known)}" if facts.known else "none is registered at all"
        text = f"no processor has registered {name}; {known}"
        yield Reason(ReasonKind.NO_PROCESSOR, text, {"name": name}, list(facts.known))
        return
    fitting = [one for one in able if task.route.open_to((name,), one.labels)]
    if not fitting:
        yield _requirements(facts)
        return
    found = {"name": name, "processors": str(len(fitting))}
    names = sorted({one.processor_name for one in fitting})
    open_ = [one for one in fitting if not one.is_drained]
    if not open_:
        text = f"{_all(fitting, 'may run it')} {'is' if len(fitting) == 1 else 'are'} drained"
        yield Reason(ReasonKind.DRAINED, text, found, names)
        return
    if not any(one.streams for one in open_):
        has = "has" if len(open_) == 1 else "have"
        text = f"{_all(open_, 'may run it')} {has} no stream open to a server"
        yield Reason(ReasonKind.NO_STREAM, text, found, names)
        return
    if task.due_time_us <= facts.now_us and facts.paused_us is None:
        yield from _crowd(facts, [one for one in open_ if one.streams])


def _requirements(facts: Facts) -> Reason:
    requires = facts.task.route.requires
    labels = [one.labels for one in facts.able]
    unmet = [one for one in requires if not any(one.met_by(of) for of in labels)]
    wanted, name = ", ".join(map(str, unmet or requires)), facts.task.route.name
    if len(labels) == 1:
        text = (
            f"it requires {wanted}, which {facts.able[0].processor_name}, the only processor of {name}, does not meet"
        )
    else:
        meets = "meets" if unmet else "meets at once"
        text = f"it requires {wanted}, which none of the {len(labels)} processors of {name} {meets}"
    found = {"name": name, "requires": ", ".join(map(str, requires)), "processors": str(len(labels))}
    return Reason(
        ReasonKind.REQUIREMENTS_NOT_MET,
        text,
        found,
        sorted({one.processor_name for one in facts.able}),
    )


def _crowd(facts: Facts, open_: list[Able]) -> Iterator[Reason]:
    free, credits = sum(one.free for one in open_), sum(one.limit for one in open_)
    names = sorted({one.processor_name for one in open_})
    found = {"credits": f"{credits}", "in_use": f"{credits - free}", "processors": f"{len(open_)}"}
    if not free:
        whose = f"the {len(open_)} processors that may run it" if len(open_) > 1 else f"{names[0]}, which may run it,"
        what, are = (f"all {credits:,} credits", "are") if credits > 1 else ("the one credit", "is")
        text = f"{what} of {whose} {are} in use"
        yield Reason(ReasonKind.NO_CREDITS, text, found, names)
    if facts.ahead and facts.ahead >= free:
        more = " or more" if facts.ahead_is_partial else ""
        is_due, comes = ("is", "comes") if facts.ahead == 1 and not more else ("are", "come")
        text = f"{facts.ahead:,}{more} that {is_due} due {comes} before it"
        yield Reason(ReasonKind.BEHIND_OTHERS, text, {"ahead": f"{facts.ahead}{'+' if more else ''}"})


def _expiry(facts: Facts) -> Iterator[Reason]:
    task = facts.task
    if task.expire_time_us is not None and task.failed_attempts == 0:
        text = f"it will fail as EXPIRED unless it is started in {_span(max(0, task.expire_time_us - facts.now_us))}"
        yield Reason(ReasonKind.EXPIRES, text, {"expire_time": in_rfc3339(task.expire_time_us)})


def _key(facts: Facts) -> Iterator[Reason]:
    """It keeps no task that exists from running, but those from existing that are enqueued with the same key."""
    hold = facts.key_hold
    if hold is None:
        return
    found = {"key": hold.key, "scope": hold.scope, "task_id": hold.holder}
    if hold.until_us is not None:
        found["hold_until"] = in_rfc3339(hold.until_us)
    if not hold.is_itself:
        state = "which is gone" if hold.state is None else f"which is {hold.state.name}"
        text = f"the key {hold.key} of {hold.scope} is held by {hold.holder}, {state}"
        yield Reason(ReasonKind.KEY_HELD, text, found)
        return
    ends = ["until it has finished"] if hold.until_finished else []
    if hold.until_us is not None:
        ends.append(f"for another {_span(max(0, hold.until_us - facts.now_us))}{' at least' if ends else ''}")
    text = f"it holds the key {hold.key} of {hold.scope}, {' and '.join(ends)}: no other is stored with it meanwhile"
    yield Reason(ReasonKind.HOLDS_KEY, text, found)


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _all(of: list[Able], that: str) -> str:
    if len(of) == 1:
        return f"{of[0].processor_name}, which {that},"
    return f"all {len(of)} processors that {that}"


def _attempts(task: Task) -> str:
    most = task.retry_policy.max_attempts
    return f"{task.failed_attempts} of {most} attempt{'s'[: most > 1]} used"


def _some(names: Iterable[str]) -> str:
    all_names = list(names)
    more = len(all_names) - MOST_NAMES
    return ", ".join(all_names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def _span(span_us: int) -> str:
    """To about a hundredth: the largest unit that it has, and the next one."""
    if span_us < 10_000_000:
        return f"{span_us / 1_000_000:.3g} s"
    seconds = span_us // 1_000_000
    first = next(i for i, (unit, _) in enumerate(_UNITS) if seconds >= unit)
    words = []
    for unit, word in _UNITS[first : first + 2]:
        many, seconds = divmod(seconds, unit)
        words += [f"{many} {word}"] if many else []
    return " ".join(words)
