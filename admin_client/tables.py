"""How tasks are shown. What is shown of other things stands with their verbs."""

from __future__ import annotations

from typing import Any, Final

from admin_client.output import Block, Column, Facts, Lines, Rows, Table
from admin_client.words import Words, duration, enum

_COLOURS: Final = {
    "SCHEDULED": "cyan",
    "RUNNING": "yellow",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELLED": "magenta",
    "LOST": "red",
    "TIMED_OUT": "red",
}


def colour(text: str) -> str:
    """The colour of a state or an outcome."""
    return _COLOURS.get(text, "")


def _why(task: Any, words: Words) -> str:
    if not task.HasField("last_failure"):
        return ""
    return f"{task.last_failure.error_type}: {task.last_failure.message}"


TASKS: Final = Table(
    [
        Column("ID", lambda task, words: task.task_id),
        Column("NAME", lambda task, words: task.name, is_long=True),
        Column("STATE", lambda task, words: enum(task, "state"), style=colour),
        Column("PRIORITY", lambda task, words: str(task.priority or ""), is_number=True),
        Column("ATTEMPT", lambda task, words: f"{task.attempt or ''}", is_number=True),
        Column("ENQUEUED", lambda task, words: words.at(task, "enqueue_time")),
        Column("DUE", lambda task, words: words.at(task, "due_time")),
        Column("FINISHED", lambda task, words: words.at(task, "finish_time")),
        Column("PROCESSOR", lambda task, words: task.processor_name, is_long=True),
        Column("FAILURE", _why, is_long=True),
    ],
    name=lambda task: str(task.task_id),
    nothing="no task matches",
)

ATTEMPTS: Final = Table(
    [
        Column("ATTEMPT", lambda attempt, words: str(attempt.attempt), is_number=True),
        Column("OUTCOME", lambda attempt, words: enum(attempt, "outcome") or "RUNNING", style=colour),
        Column("LEASED", lambda attempt, words: words.at(attempt, "lease_time")),
        Column("ENDED", lambda attempt, words: words.at(attempt, "end_time")),
        Column("PROCESSOR", lambda attempt, words: attempt.processor_name, is_long=True),
        Column(
            "FAILURE",
            lambda attempt, words: (
                f"{attempt.failure.error_type}: {attempt.failure.message}" if attempt.HasField("failure") else ""
            ),
            is_long=True,
        ),
    ],
    name=lambda attempt: str(attempt.attempt),
    nothing="no attempt yet",
)

TIMELINE: Final = Table(
    [
        Column("WHEN", lambda entry, words: words.at(entry, "time")),
        Column("WHAT", lambda entry, words: entry.text or enum(entry, "event"), is_long=True),
    ],
    name=lambda entry: str(entry.text),
    nothing="nothing has happened",
)


def task_facts(task: Any, words: Words) -> Facts:
    """What is known of a task."""
    retry = task.retry_policy
    return [
        ("id", task.task_id),
        ("name", task.name),
        ("state", enum(task, "state")),
        ("due", words.at(task, "due_time")),
        ("enqueued", words.at(task, "enqueue_time")),
        ("priority", str(task.priority)),
        ("attempt", f"{task.attempt} ({task.failed_attempts} of {retry.max_attempts} failed)" if task.attempt else ""),
        ("processor", task.processor_name),
        ("leased", words.at(task, "lease_time")),
        ("progress", _progress(task)),
        ("finished", words.at(task, "finish_time")),
        ("failure", _why(task, words)),
        ("requires", ", ".join(task.requires)),
        ("run timeout", duration(task.run_timeout) if task.HasField("run_timeout") else ""),
        ("expires", words.at(task, "expire_time")),
        ("tags", ", ".join(task.tags)),
        ("headers", ", ".join(f"{key}={value}" for key, value in sorted(task.headers.items()))),
        ("payload", _content(task, "payload")),
        ("result", _content(task, "result")),
    ]


def task(answer: Any, words: Words) -> list[Block]:
    """An answer that holds a task."""
    return [task_facts(answer.task, words)]


def task_detail(answer: Any, words: Words) -> list[Block]:
    """A task with its past."""
    detail = answer.detail
    facts = [fact for fact in task_facts(detail.task, words) if fact[0] not in ("payload", "result")]
    facts += [
        ("payload", detail.payload_text or _content(detail.task, "payload")),
        ("result", detail.result_text or _content(detail.task, "result")),
        ("key", detail.dedup_key),
        ("schedule", detail.schedule_name),
        ("nominal time", words.at(detail, "nominal_time")),
        ("rerun of", detail.rerun_of),
        ("reruns", ", ".join(detail.reruns)),
        ("run deadline", words.at(detail, "run_deadline")),
        ("pruned", words.at(detail, "prune_time")),
    ]
    return [
        facts,
        Rows("Attempts", detail.attempts, ATTEMPTS),
        Rows("Timeline", detail.timeline, TIMELINE),
        Lines("Stack trace", detail.task.last_failure.stack),
    ]


def explanation(answer: Any, words: Words) -> list[Block]:
    """Why a task is not running."""
    said = answer.summary.rstrip(".").casefold()
    sentences = [reason.text for reason in answer.reasons if reason.text.rstrip(".").casefold() != said]
    shown: list[Block] = [f"{enum(answer, 'state')}: {answer.summary}"]
    if sentences:
        shown.append([(str(place), text) for place, text in enumerate(sentences, 1)])
    return shown


def _progress(task: Any) -> str:
    if not task.HasField("progress"):
        return ""
    return f"{task.progress.fraction:.0%} {task.progress.message}".strip()


def _content(task: Any, field: str) -> str:
    """A payload as text where it is text, else how much of what it is."""
    if not task.HasField(field):
        return ""
    payload = getattr(task, field)
    if payload.content_type.startswith(("application/json", "text/")):
        return str(payload.data.decode("utf-8", errors="replace"))
    return f"{len(payload.data):,} bytes of {payload.content_type or 'application/octet-stream'}"
