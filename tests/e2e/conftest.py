"""Real processes, killed for real.

--kills=300 (or TASKQ_KILLS=300)       how often the server is killed under load
--restarts=50 (or TASKQ_RESTARTS=50)   how often PostgreSQL is restarted under load
--stops=50 (or TASKQ_STOPS=50)         how often the server is told to stop under load
--slow      (or TASKQ_SLOW=1)          also the tests that take minutes
--seed=7    (or TASKQ_SEED=7)          the random instants of an earlier run, which is printed when one fails
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.console import Console
from tests.support.postgres import PostgresProcess
from tests.support.postgres_proxy import PostgresProxy
from tests.support.process import taskq_db
from tests.support.world import World

KILLS = 30
RESTARTS = 5
STOPS = 10
StartWorld = Callable[..., World]


def pytest_addoption(parser: pytest.Parser) -> None:
    # Known only when this folder is named on the command line; the environment always works.
    parser.addoption("--kills", type=int, help="how often the server is killed under load")
    parser.addoption("--restarts", type=int, help="how often PostgreSQL is restarted under load")
    parser.addoption("--stops", type=int, help="how often the server is told to stop under load")
    parser.addoption("--slow", action="store_true", default=None, help="also the tests that take minutes")
    parser.addoption("--seed", type=int, help="the seed of the random instants")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seconds = {
        "kills": 5 * _setting(config, "kills", KILLS),
        "restarts": 15 * _setting(config, "restarts", RESTARTS),
        "stops": 10 * _setting(config, "stops", STOPS),
    }
    for item in items:
        for option in seconds.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(120 + seconds[option]))


def _setting(config: pytest.Config, name: str, default: int) -> int:
    given = config.getoption(f"--{name}", default=None)
    return int(os.environ.get(f"TASKQ_{name.upper()}", default) if given is None else given)


@pytest.fixture
def kills(pytestconfig: pytest.Config) -> int:
    return _setting(pytestconfig, "kills", KILLS)


@pytest.fixture
def restarts(pytestconfig: pytest.Config) -> int:
    return _setting(pytestconfig, "restarts", RESTARTS)


@pytest.fixture
def stops(pytestconfig: pytest.Config) -> int:
    return _setting(pytestconfig, "stops", STOPS)


@pytest.fixture
def slow(pytestconfig: pytest.Config) -> None:
    """Asked for by tests that take minutes."""
    if not _setting(pytestconfig, "slow", 0):
        pytest.skip("takes minutes; --slow or TASKQ_SLOW=1 runs it")


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """Where every random instant of a test comes from; printed, so that a failure can be run again."""
    seed = _setting(pytestconfig, "seed", random.SystemRandom().randrange(1_000_000))
    print(f"seed {seed}: TASKQ_SEED={seed} runs the same instants again")
    return seed


@pytest.fixture
def durable_postgres() -> Iterator[PostgresProcess]:
    """A PostgreSQL of the test's own that keeps what it has committed, to be stopped and killed; `taskq` is a database
    with the schema."""
    with PostgresProcess(fsync=True, max_connections=60) as postgres:
        with Console(postgres.url()) as console:
            console.run("CREATE DATABASE taskq")
        with taskq_db("upgrade", "--database-url", postgres.url("taskq")) as upgrading:
            _, said = upgrading.communicate()
        assert upgrading.returncode == 0, said
        yield postgres


@pytest.fixture
def durable_postgres_url(durable_postgres: PostgresProcess) -> str:
    return durable_postgres.url("taskq")


@pytest.fixture
def proxy(durable_postgres_url: str) -> Iterator[PostgresProxy]:
    """A way to that database which can be held up and cut."""
    with PostgresProxy(durable_postgres_url) as proxy:
        yield proxy


@pytest.fixture
def start_world(tmp_path: Path) -> Iterator[StartWorld]:
    """Starts a server in a world of its own: `start_world(lease_duration="2s")`; all of it ends with the test."""
    with ExitStack() as worlds:

        def start(**settings: Any) -> World:
            world = worlds.enter_context(World(tmp_path, **settings))
            world.start()
            return world

        yield start
