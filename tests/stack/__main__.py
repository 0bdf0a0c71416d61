"""Brings the stack up in each profile, kills processors and a server in each, and counts what became of the tasks.

`python -m tests.stack [BUILD ARGUMENT…]` builds the images first, with these further arguments of `docker build`.
"""

from __future__ import annotations

import json
import ssl
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from client_core.access import TLS
from examples.cook_pasta.orders import BoilPasta, Dish, MakeSauce, at
from scheduler_client import TaskState, TaskView
from scheduler_client.sync import Scheduler
from tests.stack import grafana, page
from tests.stack.engine import PORTS, Stack, build, docker, has_image, inspect, kill, say, wait_for
from tests.unit.test_alerts_and_boards import BOARDS, expressions, rules

TASKS = 60
PROMETHEUS, GRAFANA = "prom/prometheus", "grafana/grafana"
ASKED = [expression for path in BOARDS for expression in expressions(json.loads(path.read_text()))]


def dishes() -> Iterator[Dish]:
    """Two of three are boiled, by all; one is a sauce, for mario. They fall due within twelve seconds."""
    for number in range(TASKS):
        what = MakeSauce(dish=f"sauce {number}") if number % 3 == 0 else BoilPasta(dish=f"pasta {number}")
        yield at(1 + number / 5, what)


def address(port: str) -> str:
    return f"localhost:{PORTS[port]}"


def scheduler(port: str, certificates: Path) -> Scheduler:
    """By TLS, through the port on this machine."""
    shown = TLS(certificates / "ca.pem", certificates / "scheduler.pem", certificates / "scheduler.key")
    return Scheduler(address(port), tls=shown)


def enqueue(scheduler: Scheduler) -> list[str]:
    """Enqueues them all; their ids."""
    handles = scheduler.enqueue_many(dishes())
    say(f"{len(handles)} tasks are enqueued at {scheduler.address}, by TLS")
    return [handle.task_id for handle in handles]


def is_cooking(scheduler: Scheduler, task_ids: list[str]) -> bool:
    """Whether some are served and others are being cooked."""
    return {TaskState.RUNNING, TaskState.SUCCEEDED} <= {scheduler.get(task_id).state for task_id in task_ids}


def see_all_succeed(scheduler: Scheduler, task_ids: list[str]) -> None:
    """Waits until all have come to their end, and says which."""

    def look() -> list[TaskView]:
        return [scheduler.get(task_id) for task_id in task_ids]

    wait_for(lambda: all(view.state.is_finished for view in look()), "all tasks have come to their end")
    states, again = Counter(view.state for view in look()), sum(view.attempt > 1 for view in look())
    say(f"{states[TaskState.SUCCEEDED]} of {len(task_ids)} SUCCEEDED, {again} of them at a second attempt")
    assert states == {TaskState.SUCCEEDED: len(task_ids)}, states


def by_https(port: str, path: str, certificates: Path) -> str:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with urllib.request.urlopen(f"https://{address(port)}{path}", context=context, timeout=10) as answer:
        return answer.read().decode().strip()  # type: ignore[no-any-return]


def sqlite(stack: Stack, certificates: Path) -> None:
    """The stack as it comes up without a word."""
    say("── docker compose up --scale processor=5")
    stack.types(page.UP, "--detach", "--no-build", "--scale=processor=5")
    wait_for(lambda: stack.is_healthy("server"), "the server is healthy")
    wait_for(lambda: all(map(stack.is_running, ("scheduler", "processor", "baker"))), "scheduler and processors run")
    assert len(stack.containers("processor")) == 5
    stack.copy_certificates(certificates)
    is_confined(stack)
    keys_are_where_they_belong(stack)
    assert "tq_" in stack.types(page.TOKEN)
    assert by_https("TASKQ_HTTP_PORT", "/readyz", certificates) == "ok"
    with scheduler("TASKQ_PORT", certificates) as customer:
        task_ids = enqueue(customer)
        wait_for(lambda: is_cooking(customer, task_ids), "some are being cooked")
        for victim in stack.containers("processor")[:4]:
            kill(victim)
        (server,) = stack.containers("server")
        kill(server)
        docker("start", server)
        wait_for(lambda: stack.is_healthy("server"), "the server is started again, and healthy")
        see_all_succeed(customer, task_ids)
    stops_well(stack, "processor", "server")


def is_confined(stack: Stack) -> None:
    """Nobody is root, and nobody can write where there is no volume."""
    for service in ("server", "processor", "scheduler"):
        container = stack.containers(service)[0]
        assert docker("exec", container, "id", "-u") == "10001"
        tried = docker("exec", container, "sh", "-c", "touch /opt/taskq/x 2>/dev/null || echo refused", quiet=True)
        assert tried == "refused", service
        assert inspect(container)["HostConfig"]["ReadonlyRootfs"], service
    say("all run as user 10001, on file systems that they cannot write to")


def keys_are_where_they_belong(stack: Stack) -> None:
    """Each reads its own, and the administrator's is the operator's alone, who may do anything."""
    kept = {"server": ["probe.key", "server.key"], "processor": ["processor.key"], "scheduler": ["scheduler.key"]}
    for service, keys in kept.items():
        listed = docker("exec", stack.containers(service)[0], "sh", "-c", "cd /certs && ls *.key").split()
        assert listed == keys, f"{service} has {listed}"
    processors = stack.types(page.PROCESSORS, "-o", "name").split()
    assert len(processors) == 6, processors
    say(f"none of them has the administrator's key; the operator sees {len(processors)} processors")


def stops_well(stack: Stack, *services: str) -> None:
    """SIGTERM, as at each new version: all end by themselves, in time."""
    for service in services:
        living = [one for one in stack.containers(service) if inspect(one)["State"]["Running"]]
        for container in living:
            docker("stop", container)  # SIGTERM, and SIGKILL after its stop_grace_period
            code = inspect(container)["State"]["ExitCode"]
            assert code == 0, f"{service} ended with {code}"
    say(f"{' and '.join(services)} end by SIGTERM, exit code 0")


def postgres(stack: Stack, certificates: Path) -> None:
    """Two servers on PostgreSQL; one of them and its processor do not come back."""
    say("── docker compose --profile postgres up")
    stack.up(profiles=("postgres",))
    for server in ("server-1", "server-2"):
        wait_for(lambda server=server: stack.is_healthy(server), f"{server} is healthy")  # type: ignore[misc]
    wait_for(lambda: all(map(stack.is_running, ("processor-1", "processor-2"))), "a processor runs on each")
    stack.copy_certificates(certificates)
    with scheduler("TASKQ_PORT_1", certificates) as customer:
        task_ids = enqueue(customer)
    assert stack.types(page.TASKS, "-o", "name").split(), "the operator sees no task of server-1"
    with scheduler("TASKQ_PORT_2", certificates) as customer:
        wait_for(lambda: is_cooking(customer, task_ids), "some are being cooked")
        for victim in ("processor-1", "server-1"):
            kill(*stack.containers(victim))
        see_all_succeed(customer, task_ids)
    stack.up(profiles=("postgres",))
    wait_for(lambda: stack.is_healthy("server-1"), "server-1 is started again, and healthy")


def observability(stack: Stack, certificates: Path) -> None:
    """Prometheus finds the servers by its token, also one that comes back; it knows what board and alerts ask.

    Grafana, where its image is there, shows the board to whoever comes, and its data.
    """
    say("── docker compose --profile postgres --profile observability up")
    services = [name for name, image in (("prometheus", PROMETHEUS), ("grafana", GRAFANA)) if has_image(image)]
    for missing in {"prometheus", "grafana"} - set(services):
        say(f"(left out, as its image is not on this machine: {missing})")
    if "prometheus" not in services:
        return
    stack.up(*services, "processor", profiles=("postgres", "observability"), scale=("processor", 2))
    servers = {"server:8080", "server-1:8080", "server-2:8080"}
    wait_for(lambda: scraped() == servers, "Prometheus scrapes all three servers")
    with scheduler("TASKQ_PORT", certificates) as customer:
        task_ids = enqueue(customer)
        wait_for(lambda: is_cooking(customer, task_ids), "some are being cooked")
        kill(stack.containers("processor")[0])
        (server,) = stack.containers("server")
        kill(server)
        wait_for(lambda: scraped() == servers - {"server:8080"}, "Prometheus misses the one that was killed")
        docker("start", server)
        wait_for(lambda: stack.is_healthy("server"), "the server is started again, and healthy")
        see_all_succeed(customer, task_ids)
    wait_for(lambda: scraped() == servers, "Prometheus scrapes all three servers again")
    moment = time.time()
    empty = unanswered(of_prometheus, moment)
    say(f"Prometheus understands the {len(ASKED)} expressions of the dashboard; it finds nothing for {empty or 'none'}")
    wait_for(alerts_are_evaluated, "Prometheus evaluates every alert")
    if "grafana" in services:
        grafana.shows_what_it_is_given()
        lost = set(unanswered(grafana.by_proxy, moment)) - set(empty)
        assert not lost, f"Grafana has no data for {lost}"
        say(f"a visitor of Grafana has an answer to the {len(ASKED) - len(empty)} that Prometheus has data for")


def unanswered(ask: Callable[..., Any], moment: float) -> list[str]:
    """The expressions of the dashboard for which nothing was there at that moment; OSError where one is refused."""
    return [one for one in ASKED if not ask("query", query=in_grafana(one), time=str(moment))["result"]]


def scraped() -> set[str]:
    """The servers that it scrapes, by their names on the network."""
    try:
        found = of_prometheus("query", query='up{job="taskq"} == 1')["result"]
    except OSError:
        return set()
    return {series["metric"]["instance"] for series in found}


def in_grafana(expression: str) -> str:
    """With its variables as Grafana would fill them in."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


def alerts_are_evaluated() -> bool:
    groups = of_prometheus("rules")["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert "err" not in health.values(), health
    return health == {rule["alert"]: "ok" for rule in rules()}


def of_prometheus(what: str, **asked: str) -> Any:
    """OSError where it does not answer, or does not understand."""
    question = f"http://{address('PROMETHEUS_PORT')}/api/v1/{what}?{urllib.parse.urlencode(asked)}"
    with urllib.request.urlopen(question, timeout=10) as answer:
        return json.load(answer)["data"]


def main(arguments: list[str]) -> None:
    build(arguments)
    stack = Stack()
    stack.down()
    with tempfile.TemporaryDirectory(prefix="taskq-certs-") as folder:
        try:
            sqlite(stack, Path(folder))
            postgres(stack, Path(folder))
            observability(stack, Path(folder))
            page.see_all_typed()
        except (AssertionError, OSError, TimeoutError, SystemExit):
            print(stack.logs(), file=sys.stderr)
            raise
        finally:
            stack.down()
    say("all is as it should be, and nothing is left")


if __name__ == "__main__":
    main(sys.argv[1:])
