"""What each fault of wrong_processor.py breaks: these promises, and no others.

`python -m tests.conformance.faults` looks for that, with every fault and every promise: seven minutes on two cores.
The exit code is 1 unless all is so.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from admin_client.conformance import kit
from admin_client.conformance.promises import ALL

WRONG: Final = [sys.executable, str(Path(__file__).with_name("wrong_processor.py"))]

FAULTS: Final[dict[str, set[str]]] = {
    "begins-anew-when-a-heartbeat-fails": {"heartbeat-again", "server-away"},
    "calls-every-error-the-same": {"failure", "long-failures"},
    "changes-its-mind": {"answer-lost"},
    "confuses-attempts": {"echo", "fencing"},
    "cuts-results": {"large-payloads"},
    "dies-after-a-lost-answer": {"answer-lost"},
    "dies-of-sigterm": {"tls-and-token", "drain", "drain-reports", "drain-crossing", "drain-lost"},
    "dies-of-unknown-events": {"unknown-events"},
    "does-not-heartbeat": {
        "reregister",
        "heartbeats",
        "in-flight",
        "rest",
        "heartbeat-again",
        "heartbeats-go-on",
        "lost",
        "cancel-by-heartbeat",
        "fencing",
        "drain",
        "drain-crossing",
        "drain-lost",
    },
    "does-not-reconnect-after-internal": {"reconnect"},
    "does-not-unregister": {"drain"},
    "drops-reports-after-aborted": {"report-again"},
    "drops-results-at-the-drain": {"drain", "drain-reports", "drain-crossing"},
    "drops-what-comes-while-it-drains": {"drain-crossing"},
    "ends-when-drained-by-an-administrator": {"administrators-drain"},
    "fights-over-the-stream": {"superseded"},
    "has-no-name": {"registration"},
    "heartbeats-too-seldom": {"heartbeats", "heartbeat-again", "heartbeats-go-on"},
    "heartbeats-until-one-fails": {"heartbeat-again"},
    "ignores-cancels-in-heartbeats": {"cancel-by-heartbeat"},
    "ignores-cancels-on-the-stream": {"cancel-by-stream"},
    "ignores-reopen": {"superseded", "reopen"},
    "ignores-reregister": {"reregister"},
    "ignores-what-is-cancelled-and-lost": {"lost", "cancel-by-stream", "cancel-by-heartbeat", "fencing", "drain-lost"},
    "ignores-what-is-lost": {"lost", "fencing", "drain-lost"},
    "insists-when-the-lease-is-lost": {"lease-lost"},
    "knows-a-task-by-its-id-alone": {"fencing"},
    "lists-no-task-that-has-ended": {"in-flight"},
    "lists-nothing": {"in-flight", "lost", "cancel-by-heartbeat", "drain-lost"},
    "outlives-its-session": {"reregister", "session-not-found"},
    "reconnects-at-once-and-for-ever": {"backoff"},
    "registers-for-five": {"registration"},
    "registers-once": {"register-again"},
    "reopens-a-stream-that-is-not-found": {"session-not-found"},
    "reports-all-at-once": {"large-results"},
    "reports-messages-whole": {"long-failures"},
    "reports-once-at-the-drain": {"drain-reports"},
    "reports-twice": {"one-report"},
    "reports-what-is-lost": {"reregister", "session-not-found", "lost", "fencing"},
    "reports-what-is-too-large": {"refused-results"},
    "rests-whatever-comes": {"rest"},
    "runs-duplicates": {"duplicates"},
    "runs-four-at-a-time": {"credits"},
    "says-nothing-of-its-drain": {"drain", "drain-crossing", "drain-lost"},
    "shows-no-token-in-heartbeats": {"tls-and-token"},
    "takes-a-rotation-for-a-drain": {"rotation"},
    "takes-little": {"large-payloads", "long-failures"},
    "talks-in-plaintext": {"tls-and-token", "tls-stranger"},
    "trusts-a-silent-stream": {"silence"},
    "trusts-any-server": {"tls-stranger"},
    "waits-for-a-heartbeat-for-ever": {"heartbeat-again"},
    "waits-for-an-answer-for-ever": {"report-unanswered"},
    "waits-for-what-is-lost": {"drain-lost"},
}


async def broken(fault: str, names: Iterable[str] | None = None, *, jobs: int, patience: float = 10) -> set[str]:
    """The promises that a processor with this fault breaks, of those that are asked about."""
    promises = [promise for promise in ALL if names is None or promise.name in names]
    judging = kit.verdicts([*WRONG, f"--fault={fault}"], promises, jobs=jobs, patience=patience)
    return {verdict.promise.name async for verdict in judging if not verdict.holds}


async def _main() -> bool:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # handshakes fail here on purpose
    all_as_expected = True
    for fault, expected in FAULTS.items():
        found = await broken(fault, jobs=20)
        all_as_expected &= found == expected
        word = "as expected" if found == expected else "OTHERWISE  "
        names = [*sorted(found), *(f"not {name}" for name in sorted(expected - found))]
        print(f"{word}  {fault}: {', '.join(names)}", flush=True)
    return all_as_expected


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(_main()) else 1)
