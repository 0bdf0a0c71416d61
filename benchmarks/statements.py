"""How many statements a database runs for a server, counted from without: each leaves a line in a file.

SQLite calls for each statement as it begins, if it is asked to (`benchmarks/traced_server.py`); PostgreSQL writes each
into its log. BEGIN and COMMIT count: they are statements too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.database import Cluster, Database
from benchmarks.roles import Server, serving
from benchmarks.traced_server import FILE

LOGGED = {"log_statement": "all", "log_line_prefix": "%a|"}
"""How a cluster must be set."""
_LOG_LINE = re.compile(r"^taskq/[^|]*\|LOG:  (?:statement|execute [^:]*): *(\w+)", re.MULTILINE)


def of_trace(text: str) -> list[str]:
    """The first words of the statements that a traced server has run."""
    return text.split()


def of_log(text: str) -> list[str]:
    """The same of our servers in PostgreSQL's log, where others stand too."""
    return _LOG_LINE.findall(text)


class Statements:
    """Those that were run since `skip`."""

    def __init__(self, file: Path, words: Callable[[str], list[str]]) -> None:
        self._file = file
        self._words = words
        self.skip()

    def skip(self) -> None:
        """What was run until now does not count."""
        self._read = self._file.stat().st_size

    def words(self) -> list[str]:
        """The first word of each, in the order in which they were run."""
        with self._file.open(errors="replace") as file:
            file.seek(self._read)
            return self._words(file.read())


@contextmanager
def counted(database: Database, url: str) -> Iterator[tuple[Server, Statements]]:
    """A server on that database, and what is run for it. A cluster must have been set as LOGGED says."""
    if isinstance(database, Cluster):
        with serving(url) as server:
            yield server, Statements(database.log, of_log)
    else:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "statements"
            file.touch()
            os.environ[FILE] = str(file)
            with serving(url, "benchmarks.traced_server") as server:
                yield server, Statements(file, of_trace)
