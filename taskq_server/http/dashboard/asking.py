"""What a question before a change is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from taskq_server.http.dashboard.forms import Form
from taskq_server.http.dashboard.visit import Visit

MOST_REASON = 1_024


@dataclass(frozen=True, slots=True)
class Entry:
    """A field of the form."""

    name: str
    label: str
    kind: str = "text"
    """text, textarea, checkbox, select, or what HTML's input knows."""
    value: str = ""
    hint: str = ""
    is_required: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """A question."""

    title: str
    says: list[str]
    """What there is to know before one answers; each a paragraph."""
    submit: str
    fields: list[Entry] = field(default_factory=list)
    hidden: list[tuple[str, str]] = field(default_factory=list)
    """What the form carries along."""
    back: str = "/"
    is_danger: bool = False
    is_possible: bool = True


@dataclass(frozen=True, slots=True)
class Action:
    """Something that can be done: what is asked first, and what does it and answers where to go on."""

    ask: Callable[[Visit, Form], Awaitable[Ask]]
    do: Callable[[Visit, Form], Awaitable[str]]


def reason(form: Form, label: str = "Reason") -> Entry:
    """Why, for the audit and for whoever wonders later."""
    return Entry("reason", label, value=form.get("reason"), hint=f"for people; at most {MOST_REASON:,} characters")
