"""Databases of both kinds for what an operator does to them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskq_server.store.postgres import admin as postgres_admin
from tests.store.admin.copies import make_queue, silent
from tests.support.databases import Databases

NewFile = Callable[[], str]


@pytest.fixture(autouse=True)
def unanalyzed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the planner was told makes a database unfit for the next test, and to make another takes half a second."""
    monkeypatch.setattr(postgres_admin, "_analyze", silent)


@pytest.fixture
def postgres(databases: Databases) -> Iterator[str]:
    """The URL of a PostgreSQL database with its tables and nothing in them."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def another_postgres(databases: Databases) -> Iterator[str]:
    with databases.fresh() as url:
        yield url


@pytest.fixture
def new_file(tmp_path: Path) -> NewFile:
    """Answers the URL of a SQLite file that is not there yet, another one each time."""
    numbers = iter(range(99))
    return lambda: f"sqlite:///{tmp_path}/new-{next(numbers)}.db"


@pytest.fixture(scope="package")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "taskq.db"
    make_queue(path)
    return path


@pytest.fixture
def queue(full: Path, tmp_path: Path) -> str:
    """The URL of a SQLite file with something of everything."""
    shutil.copyfile(full, tmp_path / "queue.db")
    return f"sqlite:///{tmp_path}/queue.db"
