"""A text read as a filter."""

from __future__ import annotations

import re

from taskq_server.core.filter.keys import KEYS, Key
from taskq_server.core.filter.terms import PRESENT, Filter, Op, Term, Value, shown
from taskq_server.core.filter.written import FilterRefused, raw_at

MOST_CHARACTERS = 1_024
MOST_TERMS = 32

_SPACE = re.compile(r"\s*")
_HEAD = re.compile(r"(-?)([A-Za-z_]*)(!=|<=|>=|[:=<>])?")


def parse(text: str) -> Filter:
    """The filter that a text says, in its canonical form; else FilterRefused."""
    if len(text) > MOST_CHARACTERS:
        raise FilterRefused(MOST_CHARACTERS, f"no more than {MOST_CHARACTERS:,} characters", text[MOST_CHARACTERS:])
    if (at := text.find("\0")) >= 0:
        raise FilterRefused(at, "no U+0000", text[at])
    terms: list[Term] = []
    at = _after_space(text, 0)
    while at < len(text):
        if len(terms) == MOST_TERMS:
            raise FilterRefused(at, f"an end after {MOST_TERMS} terms", text[at:])
        term, end = _term(text, at)
        terms.append(term)
        at = _after_space(text, end)
    found = Filter(tuple(sorted(set(terms), key=str)))
    if len(str(found)) > MOST_CHARACTERS:  # times and requirements may be written shorter than they are kept
        raise FilterRefused(len(text), f"no more than {MOST_CHARACTERS:,} characters once it is spelt out", "more")
    return found


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _term(text: str, start: int) -> tuple[Term, int]:
    head = _HEAD.match(text, start)
    assert head is not None, "it matches nothing, too"
    minus, name, sign = head.groups()
    key = KEYS.get(name)
    if key is None:
        raise FilterRefused(head.start(2), f"one of the keys {', '.join(KEYS)}", name or text[start : start + 16])
    if sign is None or sign not in key.signs:
        raise FilterRefused(head.end(2), f"one of {' '.join(key.signs)} after {name}", sign or text[head.end(2) :][:8])
    negated = bool(minus) != (sign == "!=")
    op = Op.IS if sign in ("=", "!=") else Op(sign)
    values, end = _values(text, head.end(), key, op)
    return Term(name, op, values, negated), end


def _values(text: str, at: int, key: Key, op: Op) -> tuple[tuple[Value, ...], int]:
    found: list[Value] = []
    while True:
        raw, at = raw_at(text, at, key.what)
        found.append(key.read(raw))
        if op is not Op.IS and found[-1] is PRESENT:
            raise raw.refuse(f"{key.what} after {op.value}")
        if not text.startswith(",", at):
            break
        if op is not Op.IS:
            raise FilterRefused(at, f"a single value after {op.value}", text[at:])
        at += 1
    if at < len(text) and not text[at].isspace():
        raise FilterRefused(at, "a comma or a space after a value", text[at:])
    return tuple(sorted(set(found), key=shown)), at
