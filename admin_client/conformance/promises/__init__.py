"""Every promise, in the order of docs/clients.md."""

from typing import Final

from admin_client.conformance.promise import Promise
from admin_client.conformance.promises import leases, reports, running, sessions, stopping, streams

ALL: Final[tuple[Promise, ...]] = tuple(
    promise
    for chapter in (sessions, running, leases, reports, streams, stopping)
    for promise in chapter.CHAPTER.promises
)
