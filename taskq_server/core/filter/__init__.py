"""Which tasks somebody asks for: `state:FAILED name:kitchen.* -tag:test due_time<now-1h`.

Terms stand between spaces and must all be true. A term is a key, an operator and a value, or several values between
commas, of which one must hold; `-` before it turns it round. What a task does not have makes a term false, and with `-`
true. docs/filters.md tells it to people.

terms     what a filter says, and its canonical text
written   a value as somebody wrote it, and what is refused
keys      what a term may be about, and how its values are written
parsing   a text read as a filter
"""

from taskq_server.core.filter.keys import KEYS
from taskq_server.core.filter.parsing import MOST_CHARACTERS, MOST_TERMS, parse
from taskq_server.core.filter.terms import (
    EVERYTHING,
    PRESENT,
    Filter,
    Flag,
    Moment,
    Op,
    Term,
    Text,
    Value,
)
from taskq_server.core.filter.written import FilterRefused

__all__ = [
    "EVERYTHING",
    "KEYS",
    "MOST_CHARACTERS",
    "MOST_TERMS",
    "PRESENT",
    "Filter",
    "FilterRefused",
    "Flag",
    "Moment",
    "Op",
    "Term",
    "Text",
    "Value",
    "parse",
]
