"""Servers that have nothing to do leave their database alone: what they ask it is counted in its own log."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from tests.e2e.conftest import StartWorld
from tests.support.postgres import PostgresProcess
from tests.support.raw import a_task
from tests.support.waiting import let_pass
from tests.support.world import World

ALONE_SECONDS = 4
ATTENDED_SECONDS = 8
"""More than one heartbeat of each processor."""
SETTLED_SECONDS = 2.5
"""By then what belongs to a start is over, and what was done is written down."""
MOST_STATEMENTS = 5
"""A second, of one server."""
HEARTBEAT_SECONDS = 7.5
"""A quarter of the lease, which is the default."""
PROCESSORS = 10
TYPES = 2
"""Statements by which the driver learns what an array is, once for each connection."""

LINE = re.compile(r"^(\d+) taskq/\S+ \S+:(\d+)\|LOG:  (?:statement|execute [^:]+): (.*)$", re.MULTILINE)
"""A statement of a server's in the log, with the pids of PostgreSQL's process and of the server."""
BRACKETS = ("BEGIN", "COMMIT", "ROLLBACK")
HEARTBEAT = "UPDATE session SET alive_until_us"


@dataclass
class Asked:
    """What one server has asked, by connection; BEGIN, COMMIT and ROLLBACK are counted apart, as `brackets`."""

    seconds: float
    brackets: int = 0
    statements: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def heartbeats(self) -> int:
        """How many transactions were for heartbeats."""
        return sum(one.startswith(HEARTBEAT) for asked in self.statements.values() for one in asked)

    @property
    def of_heartbeats(self) -> int:
        """How many statements came by the connection of the heartbeats."""
        return sum(len(asked) for asked in self.statements.values() if any(one.startswith(HEARTBEAT) for one in asked))

    @property
    def others(self) -> int:
        return sum(map(len, self.statements.values())) - self.of_heartbeats

    def __str__(self) -> str:
        a_second = [count / self.seconds for count in (self.others, self.of_heartbeats, self.brackets)]
        return "{:.1f} statements a second, {:.1f} for heartbeats, {:.1f} of BEGIN and COMMIT".format(*a_second)


def asked_while_idle(world: World, postgres: PostgresProcess, seconds: float) -> list[Asked]:
    """What each of the servers asks from now on."""
    before = len(postgres.read_log())
    let_pass(seconds)
    asked = {server.pid: Asked(seconds) for server in world.servers}
    for connection, pid, statement in LINE.findall(postgres.read_log()[before:]):
        if statement.startswith(BRACKETS):
            asked[int(pid)].brackets += 1
        else:
            asked[int(pid)].statements[connection].append(statement)
    return [asked[server.pid] for server in world.servers]


def test_servers_with_nothing_to_do_ask_five_statements_a_second_at_most_and_processors_add_only_heartbeats(
    start_world: StartWorld, durable_postgres: PostgresProcess
) -> None:
    durable_postgres.settings |= {"log_statement": "all", "log_line_prefix": "%p %a|"}
    durable_postgres.restart("fast")
    world = start_world(database_url=durable_postgres.url("taskq"), servers=2, log_level="warning")
    # given tasks that are not due, and some that nobody can run
    later = [a_task() for _ in range(20)]
    for task in later:
        task.delay.CopyFrom(Duration(seconds=3600))
    world.enqueue(*later, *(a_task("nobody") for _ in range(20)))
    let_pass(SETTLED_SECONDS)

    alone = asked_while_idle(world, durable_postgres, ALONE_SECONDS)

    crowds = [
        world.processor(f"crowd-{i}", address=server.address, copies=PROCESSORS // 2).start()
        for i, server in enumerate(world.servers)
    ]
    let_pass(SETTLED_SECONDS)
    attended = asked_while_idle(world, durable_postgres, ATTENDED_SECONDS)

    for asked in (*alone, *attended):
        print(asked)
        assert asked.others, "its statements are not found in the log"
        assert asked.others <= MOST_STATEMENTS * asked.seconds, most_asked(asked)
    for asked in alone:
        assert asked.of_heartbeats == 0
    for asked in attended:
        assert asked.heartbeats, "heartbeats are not found in the log"
        assert asked.heartbeats <= PROCESSORS // 2 * (1 + asked.seconds / HEARTBEAT_SECONDS)
        # what time it is, and who lives; one that is under way
        assert asked.of_heartbeats <= 2 * asked.heartbeats + TYPES + 1, most_asked(asked)

    assert all(crowd.stop() == 0 for crowd in crowds)
    assert all(server.stop() == 0 for server in world.servers)


def most_asked(asked: Asked) -> str:
    return str(Counter(one for statements in asked.statements.values() for one in statements).most_common(5))
