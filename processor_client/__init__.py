"""Runs tasks: the handlers are yours, everything else about a task's run is done here.

Tasks come at least once: an attempt whose processor is thought dead runs again elsewhere, so a handler that must act
once hands `ctx.idempotency_key` to whatever it acts on.

What a program uses:
    processor.py     Processor: what it runs, start, run, stop
    task.py          Task: the class form of a handler
    context.py       Context: what a handler may know and say
    verdicts.py      Retry, Fail, Snooze: what a handler may raise to say how its attempt ends

The way of a task through here:
    registration.py  opens a session
    session.py       one session: what it holds, and how that ends; inbox.py: what the server says to it
    streams.py       brings tasks; reconnects; its watchdog
    attempt.py       one attempt that is held; held.py: all of them, shared with the heartbeat's thread
    runner.py        runs handlers and hooks, in lanes.py on the loop, in threads.py, or in children.py (child.py)
    handler.py       a function or Task class made ready; arguments.py binds what it declares
    report.py        what came of it, in the contract's words; reporter.py sends it until it is answered
    heart.py         keeps the leases, from a thread of its own; link.py: channels that are opened anew
    winding_up.py    the drain; signals.py: what starts it
    server_clock.py, cancellation.py, listener.py: what time it is, that an attempt is to stop, who is told of progress
    tracing.py       a span around each attempt, where the program traces
    wording.py       text that the wire takes
"""

import logging

from client_core.access import TLS
from processor_client.context import Context, LastFailure
from processor_client.processor import Processor
from processor_client.task import Task
from processor_client.verdicts import Fail, ProcessLost, Retry, Snooze, TaskCancelled

__all__ = [
    "TLS",
    "Context",
    "Fail",
    "LastFailure",
    "ProcessLost",
    "Processor",
    "Retry",
    "Snooze",
    "Task",
    "TaskCancelled",
]

logging.getLogger("taskq.processor").addHandler(logging.NullHandler())
