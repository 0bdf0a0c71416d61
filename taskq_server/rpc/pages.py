"""Lists, a page at a time: each page begins after the key at which the one before has ended, whatever came between."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from taskq_server.rpc.checks import Faults
from taskq_server.store.verbs.listing import Page

Item = TypeVar("Item")
Entry = TypeVar("Entry", bound=Message)

DEFAULT_SIZE = 50
MOST_SIZE = 1_000
MOST_BYTES = 2 << 20
"""A page that has grown to so much ends, though there is more."""
MOST_TOKEN_CHARACTERS = 1_000
MOST_NUMBER = (1 << 63) - 1


class ListRequest(Protocol):
    page_size: int
    page_token: str


def page_of(faults: Faults, of: str, request: ListRequest, first: int | str) -> Page:
    """What a request asks of a list, and one item more, which tells whether there is another page. `first` comes before
    all keys."""
    if request.page_size < 0:
        faults.add("page_size", f"must not be negative; is {request.page_size}")
    after = first
    if request.page_token:
        found = _key_in(request.page_token, of)
        if type(found) is type(first) and (not isinstance(found, int) or 0 <= found <= MOST_NUMBER):
            after = found
        else:
            faults.add("page_token", "must be the next_page_token of a page of this list, or empty")
    return Page(after, min(request.page_size or DEFAULT_SIZE, MOST_SIZE) + 1)


def fill(
    of: str,
    page: Page,
    found: Sequence[Item],
    convert: Callable[[Item], Entry],
    key: Callable[[Item], int | str],
) -> tuple[list[Entry], str]:
    """A page of what was found, and the token of the next one, empty at the end."""
    entries: list[Entry] = []
    size_bytes = 0
    for item in found:
        if len(entries) == page.at_most - 1 or size_bytes > MOST_BYTES:
            return entries, token_of(of, key(found[len(entries) - 1]))
        entries.append(convert(item))
        size_bytes += entries[-1].ByteSize()
    return entries, ""


def token_of(of: str, key: int | str) -> str:
    """Asks for what comes after a key, in this list alone."""
    return base64.urlsafe_b64encode(json.dumps([of, key]).encode()).decode()


def _key_in(token: str, of: str) -> object:
    """None when it was not made here for this list."""
    try:
        made_for, key = json.loads(base64.b64decode(token[: MOST_TOKEN_CHARACTERS + 1], b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        return None
    return key if made_for == of and len(token) <= MOST_TOKEN_CHARACTERS else None
