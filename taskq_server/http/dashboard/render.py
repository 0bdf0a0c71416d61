"""Templates, and what they need of Python: times, spans, words. Everything is escaped unless it is made here."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from taskq.v1 import (
    admin_task_pb2,
    audit_pb2,
    bulk_operation_pb2,
    schedule_service_pb2,
    task_pb2,
)
from taskq_server.http.dashboard.frame import Frame

HERE = Path(__file__).parent
STATIC = HERE / "static"
_WORDS: dict[str, tuple[Any, str]] = {
    "task_state": (task_pb2.TaskState, "TASK_STATE_"),
    "attempt_outcome": (admin_task_pb2.AttemptOutcome, "ATTEMPT_OUTCOME_"),
    "timeline_event": (admin_task_pb2.TimelineEvent, "TIMELINE_EVENT_"),
    "reason_kind": (admin_task_pb2.ReasonKind, "REASON_KIND_"),
    "operation_state": (bulk_operation_pb2.BulkOperationState, "BULK_OPERATION_STATE_"),
    "audit_source": (audit_pb2.AuditSource, "AUDIT_SOURCE_"),
    "overlap": (schedule_service_pb2.Overlap, "OVERLAP_"),
    "catch_up": (schedule_service_pb2.CatchUp, "CATCH_UP_"),
    "dst_mark": (schedule_service_pb2.DstMark, "DST_MARK_"),
}
"""Filters that say an enum's value in a word."""
LANDMARKS = [
    ("", "Overview", "o"),
    ("tasks", "Tasks", "t"),
    ("failures", "Failures", "f"),
    ("schedules", "Schedules", "s"),
    ("calendar", "Calendar", "c"),
    ("processors", "Processors", "p"),
    ("capabilities", "Capabilities", "k"),
    ("operations", "Operations", "b"),
    ("audit", "Audit", "a"),
    ("system", "System", "x"),
    ("api", "API", "i"),
]
"""Path, title, and the letter after `g`."""
NOTES = {
    "paused": "Paused: nothing of it is dispatched until it is resumed.",
    "resumed": "Resumed.",
    "drained": "Drained: it finishes what it holds and is given nothing more.",
    "disconnected": "Disconnected: what it held goes to others.",
    "resolved": "Resolved, until it is seen again.",
    "created": "Created.",
    "updated": "Changed.",
    "deleted": "Deleted.",
    "triggered": "Triggered: its task is due now.",
    "skipped": "It did not fire: a task of this schedule is unfinished.",
    "buffered": "It waits until the tasks before it have finished.",
    "pruned": "Tasks past their retention are deleted.",
    "pruned-more": "A batch of tasks past their retention is deleted; there are more.",
    "cancelled": "Cancelled.",
    "cancelling": "The operation is cancelled; what it has done stays done.",
    "enqueued": "Enqueued.",
    "existing": "This task existed before; nothing has changed.",
}
"""What a page says after a change. Only these: an address cannot put words on a page."""


class Renderer:
    """Makes pages."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters = self._environment.filters
        for name, (enum, prefix) in _WORDS.items():
            filters[name] = _word(enum, prefix)
        filters |= {
            "span": span,
            "ago": ago,
            "moment": moment,
            "iso": iso,
            "spanned": spanned,
            "count": count,
            "path": lambda text: quote(str(text), safe=""),
            "compact": lambda value: json.dumps(value, ensure_ascii=True, separators=(",", ":")),
        }
        self._environment.globals |= {
            "static": lambda name: frame.base_path + static(name),
            "landmarks": LANDMARKS,
            "frame": frame,
            "base": frame.base_path,
            "url": lambda path, **query: frame.base_path + url(path, **query),
        }

    def render(self, template: str, visit: Any, **shown: Any) -> str:
        note = NOTES.get(visit.query("note"), "")
        here = visit.request.url.path.split("/")[1]
        page = self._environment.get_template(f"{template}.html")
        return page.render(visit=visit, note=note, now=visit.now, here=here, **shown)


def _word(enum: Any, prefix: str) -> Any:
    def word(value: int) -> str:
        try:
            return str(enum.Name(value)).removeprefix(prefix).lower().replace("_", " ")
        except ValueError:  # of a newer server
            return str(value)

    return word


def url(path: str, **query: str | int) -> str:
    """A path with those of the query that say something. On a page the base path stands before it."""
    text = urlencode({name: value for name, value in query.items() if value != ""})
    return f"{path}?{text}" if text else path


_VERSIONS: dict[str, str] = {}


def static(name: str) -> str:
    """The address of a file, which changes with its content."""
    if name not in _VERSIONS:
        _VERSIONS[name] = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={_VERSIONS[name]}"


def iso(time: Timestamp) -> str:
    return datetime.fromtimestamp(time.seconds, UTC).replace(microsecond=time.nanos // 1_000).isoformat()


def moment(time: Timestamp) -> str:
    """To the second, UTC."""
    return datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def seconds_of(time: Timestamp | Duration) -> float:
    return float(time.seconds) + time.nanos / 1e9


def ago(time: Timestamp, now: Timestamp) -> Markup:
    """How long ago, or in what time, by the server's clock; the browser lets it go on."""
    text = relative(seconds_of(time) - seconds_of(now))
    return Markup('<time datetime="{}" title="{}">{}</time>').format(iso(time), moment(time), text)


def relative(seconds: float) -> str:
    if abs(seconds) < 1:
        return "now"
    return f"in {spanned(seconds)}" if seconds > 0 else f"{spanned(-seconds)} ago"


def span(duration: Duration) -> str:
    return spanned(seconds_of(duration))


def spanned(seconds: float) -> str:
    """To two figures' worth: 3.2 s, 4 min 10 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 0.001:
        return "0 s" if seconds <= 0 else "<1 ms"
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    for unit, size, small, of in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // of
            return f"{whole // size} {unit} {rest} {small}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def count(number: int, is_partial: bool = False) -> str:
    """With thin spaces, and `+` for `as many or more`."""
    return f"{number:,}".replace(",", " ") + ("+" if is_partial else "")
