"""The rights that the manual gives to the servers' role where another role owns the tables."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
import pytest

from processor_client import Context, Processor
from scheduler_client import Scheduler
from taskq_server.store import migrate
from tests.examples.blocks import blocks_of
from tests.support.console import Console
from tests.support.databases import Databases
from tests.support.process import ServerProcess

(RIGHTS,) = [block.text for block in blocks_of("docs/operation.md") if block.language == "sql"]
OF_THE_PAGE = {"owner": "taskq_owner", "server": "taskq"}
AFTER_SOME = "-- Running upgrade 0005 -> "


@dataclass(frozen=True)
class Roles:
    """Two that may only what they are given, in a database without tables."""

    url: str
    owner: str
    server: str

    def url_of(self, role: str) -> str:
        address = urlsplit(self.url)
        return address._replace(netloc=f"{role}:{role}@{address.netloc.rpartition('@')[2]}").geturl()

    def rights(self) -> str:
        """As the page gives them, to roles of these names."""
        named = {name: getattr(self, which) for which, name in OF_THE_PAGE.items()}
        return re.sub(r"\btaskq(_owner)?\b", lambda found: named[found[0]], RIGHTS)

    def run_as_owner(self, *scripts: str) -> None:
        with Console(self.url_of(self.owner)) as console:
            for script in scripts:
                console.run(script)


@pytest.fixture
def roles(databases: Databases) -> Iterator[Roles]:
    letters = uuid.uuid4().hex[:8]
    with databases.bare() as url:
        two = Roles(url, f"owner_{letters}", f"server_{letters}")
        with Console(url) as console:
            for role in (two.owner, two.server):
                console.run(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
            console.run(f"GRANT CREATE ON SCHEMA public TO {two.owner}")
            yield two
            for role in (two.server, two.owner):
                console.run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize("given", ["before there are tables", "when there are some"])
async def test_a_server_of_the_weaker_role_runs_tasks_on_tables_of_the_owner(roles: Roles, given: str) -> None:
    # given
    whole = migrate.sql(None)
    some = whole[: whole.index(AFTER_SOME)] + "COMMIT;"
    rest = migrate.sql("0005")
    made = [roles.rights(), some] if given == "before there are tables" else [some, roles.rights()]
    roles.run_as_owner(*made, rest)

    # when
    server = ServerProcess(roles.url_of(roles.server))
    with server.log:
        server.start()
        try:
            result = await cooked(server.address)
            code = server.stop()
        finally:
            server.kill()
        log = server.read_log()

    # then
    assert result == "soup is served"
    assert code == 0 and "permission denied" not in log
    with Console(roles.url_of(roles.server)) as console, pytest.raises(asyncpg.InsufficientPrivilegeError):
        console.run("ALTER TABLE task ADD COLUMN colour text")


async def cooked(address: str) -> object:
    processor = Processor(address)

    @processor.task("cook")
    async def cook(ctx: Context, dish: str) -> str:
        return f"{dish} is served"

    async with processor, Scheduler(address) as scheduler:
        task = await scheduler.enqueue("cook", {"dish": "soup"})
        return await task.result(timeout=30)
