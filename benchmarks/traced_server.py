"""A server as it is, which leaves a line for each statement that SQLite runs for it: the statement's first word.

It imports nothing else of the benchmarks: its memory is measured.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Pool, event

from taskq_server import __main__ as server

FILE = "TASKQ_BENCH_STATEMENTS"
"""The variable that names the file, which must be there."""


def trace(file: Path) -> None:
    """Every connection that SQLAlchemy opens from now on says so in `file`."""
    lines = os.open(file, os.O_WRONLY | os.O_APPEND)

    @event.listens_for(Pool, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.set_trace_callback(lambda sql: os.write(lines, sql.split(None, 1)[0].encode() + b"\n"))


def main() -> int:
    trace(Path(os.environ[FILE]))
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
