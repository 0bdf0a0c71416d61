"""Every counter, gauge and histogram: what is seen of a server from outside.

Each server has a registry of its own. What happens often is told in batches, by name, and never carries an id: the
names that become labels are counted, and those after the last are one, `_other`. Told on the event loop; read from any
thread.
"""

from __future__ import annotations

import platform
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

MOST_REGISTERED = 200
"""Names that processors have registered for, in the life of a server."""
MOST_UNREGISTERED = 50
"""Names that only tasks have. Whoever puts an id into a name uses these up, and no more."""
MOST_SCHEDULES = 200
"""Schedules that have missed something, in the life of a server."""
OTHER = "_other"
MANY = 32
"""From so many values on it is quicker to sort them first."""

LATENESS = 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30, 120, 600, 3600
RUN = 0.001, 0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 900, 3600, 14400
INSIDE = 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10
ITEMS = 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000


class Names:
    """Which task names may be labels: first come, first served, and never more than so many."""

    def __init__(self, most_registered: int = MOST_REGISTERED, most_unregistered: int = MOST_UNREGISTERED) -> None:
        self._registered: set[str] = set()
        self._unregistered: set[str] = set()
        self._most_registered = most_registered
        self._most_unregistered = most_unregistered

    def register(self, names: Iterable[str]) -> None:
        """A processor runs these."""
        for name in names:
            if len(self._registered) < self._most_registered:
                self._registered.add(name)

    def known(self, name: str) -> str:
        """The label of a name, if a processor has ever registered for it."""
        return name if name in self._registered else OTHER

    def waiting(self, name: str) -> str:
        """The label of a name of which tasks wait, whether somebody runs it or not."""
        if name not in self._registered and len(self._unregistered) < self._most_unregistered:
            self._unregistered.add(name)
        return name if name in self._registered or name in self._unregistered else OTHER


def count_into(counts: list[int], bounds: Sequence[float], values: Collection[float]) -> None:
    """Counts values by the first bound that is no smaller, or else behind the last."""
    if len(values) < MANY:
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        return
    in_order, before = sorted(values), 0
    for i, bound in enumerate(bounds):  # each bound is looked up among the values, not each value among the bounds
        until = bisect_right(in_order, bound)
        counts[i] += until - before
        before = until
    counts[-1] += len(in_order) - before


class _Child:
    """The values of one set of labels."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.total = 0.0


class Spread(Collector):
    """A histogram that takes many values at once: a thousand cost 0.1 ms, as many calls of the library's 0.8 ms."""

    def __init__(
        self, name: str, help: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._help, self._labels = name, help, labels
        self._bounds = bounds
        self._children: dict[tuple[str, ...], _Child] = {}
        registry.register(self)

    def add(self, labels: tuple[str, ...], values: Collection[float]) -> None:
        """Counts values, in seconds or whatever the histogram is of."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = _Child(len(self._bounds))
        count_into(child.counts, self._bounds, values)
        child.total += sum(values)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        yield HistogramMetricFamily(self._name, self._help, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for labels, child in list(self._children.items()):
            counts, total = list(child.counts), child.total
            buckets, so_far = [], 0
            for bound, count in zip((*map(float, self._bounds), float("inf")), counts, strict=True):
                so_far += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), so_far))
            family.add_metric(labels, buckets=buckets, sum_value=total)
        yield family


class Metrics:
    """What a server counts. Its methods are for what happens often; the rest is set where it is known."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.names = Names()
        self.on_pushed: Callable[[Mapping[str, Collection[float]]], None] = _nobody
        self.on_ran: Callable[[Mapping[tuple[str, str], Collection[float]]], None] = _nobody
        """Told the same as `pushed` and `ran`: for whoever keeps a history."""

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(name, help, labels, registry=registry)

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(name, help, labels, registry=registry)

        def spread(name: str, help: str, bounds: Sequence[float], *labels: str) -> Spread:
            return Spread(name, help, labels, bounds, registry)

        # ── tasks: counted where they are committed, so a server counts what it has done itself ──
        self._enqueued = counter("taskq_tasks_enqueued_total", "Tasks stored; repeated ones are not counted", "name")
        self._finished = counter(
            "taskq_tasks_finished_total", "Tasks that are SUCCEEDED, FAILED or CANCELLED for good", "name", "outcome"
        )
        self._attempts = counter("taskq_task_attempts_total", "Attempts that have ended, and how", "name", "outcome")
        self._lateness = spread(
            "taskq_task_lateness_seconds", "From when a task was due until it was written to a stream", LATENESS, "name"
        )
        self._run = spread(
            "taskq_task_run_seconds", "From when a task was written to a stream until its report", RUN,
            "name", "outcome",
        )  # fmt: skip

        # ── what waits: read from the database now and then, the same on every server ──
        self.oldest_due_age = gauge(
            "taskq_oldest_due_age_seconds", "Since when the first task that is due has waited", "capability"
        )
        self.due_tasks = gauge(
            "taskq_due_tasks", "Tasks that are due and wait, counted up to a limit: 1,000 or fewer", "capability"
        )
        self.unroutable_tasks = gauge(
            "taskq_unroutable_tasks", "Due tasks that no living processor on any server can run", "capability"
        )
        self.paused = gauge("taskq_capability_paused", "1 for a name that an administrator has paused", "capability")
        self.backlog_time = gauge(
            "taskq_backlog_read_timestamp_seconds", "When what waits was last read from the database"
        )

        # ── schedules: each firing is counted by the server that has decided it ──
        self._firings = counter("taskq_schedule_firings_total", "Firings, and what became of them", "outcome")
        self._missed = counter(
            "taskq_schedule_missed_total", "Nominal times that passed and do not fire any more", "schedule"
        )
        self._missing: set[str] = set()

        # ── processors of this server: looked at when somebody asks ──
        self.processors = gauge("taskq_processors", "Sessions that this server pushes to", "state")
        self.slots = gauge("taskq_capability_slots", "Credits of this server's processors", "capability", "state")

        # ── inside ──
        self.database_up = gauge("taskq_database_up", "1 while the database answers")
        self._commit_items = spread(
            "taskq_commit_items", "Items that shared a transaction, whoever asked for them", ITEMS
        )
        self._query = spread(
            "taskq_db_query_seconds", "From when something was asked of the store until its answer, waiting included",
            INSIDE, "op",
        )  # fmt: skip
        self._query_failures = counter("taskq_db_query_failures_total", "What the store could not do", "op")
        self._dispatch = spread("taskq_dispatch_loop_seconds", "One round of the dispatcher", INSIDE)
        self._lag = spread("taskq_event_loop_lag_seconds", "How much later than asked the event loop came back", INSIDE)

        # ── gRPC, by the usual names, so that stock boards work ──
        call = "grpc_service", "grpc_method", "grpc_type"
        self.calls_started = counter("grpc_server_started_total", "Calls that have begun", *call)
        self.calls_handled = counter("grpc_server_handled_total", "Calls that have ended", *call, "grpc_code")
        self._handling = spread("grpc_server_handling_seconds", "Time that calls took, streams too", INSIDE, *call)

        self.certificate_expiry = gauge(
            "taskq_tls_certificate_expiry_timestamp_seconds", "When the certificate that is shown ends; 0 without TLS"
        )
        build = Info("taskq_build", "What runs", registry=registry)
        build.info({"version": version("taskq"), "python": platform.python_version(), "grpcio": version("grpcio")})
        ProcessCollector(registry=registry)

    def enqueued(self, by_name: Mapping[str, int]) -> None:
        """So many tasks of these names were stored."""
        for name, count in by_name.items():
            self._enqueued.labels(self.names.known(name)).inc(count)

    def fired(self, fired: int, skipped: Mapping[str, int], missed: Mapping[str, int]) -> None:
        """So many firings became tasks; by schedule, those that were skipped and those that were missed."""
        if fired:
            self._firings.labels("fired").inc(fired)
        if skipped:
            self._firings.labels("skipped").inc(sum(skipped.values()))
        for name, count in missed.items():
            if len(self._missing) < MOST_SCHEDULES:
                self._missing.add(name)
            self._missed.labels(name if name in self._missing else OTHER).inc(count)

    def ended(self, ends: Mapping[tuple[str, str, str], int]) -> None:
        """So many ends of tasks: by name, how the attempt ended (empty: there was none), and the state that it left
        behind if that is for good (empty: it is not)."""
        for (name, outcome, finished), count in ends.items():
            label = self.names.known(name)
            if outcome:
                self._attempts.labels(label, outcome).inc(count)
            if finished:
                self._finished.labels(label, finished).inc(count)

    def pushed(self, lateness: Mapping[str, Collection[float]]) -> None:
        """How many seconds late tasks were written to a stream, by name."""
        for name, seconds in lateness.items():
            self._lateness.add((self.names.known(name),), seconds)
        self.on_pushed(lateness)

    def ran(self, spans: Mapping[tuple[str, str], Collection[float]]) -> None:
        """How many seconds attempts took, by name and outcome."""
        for (name, outcome), seconds in spans.items():
            self._run.add((self.names.known(name), outcome), seconds)
        self.on_ran(spans)

    def committed(self, items: int) -> None:
        """A transaction was committed."""
        self._commit_items.add((), (items,))

    def answered(self, op: str, seconds: float) -> None:
        """The store has done something."""
        self._query.add((op,), (seconds,))

    def unanswered(self, op: str) -> None:
        """The store could not do something."""
        self._query_failures.labels(op).inc()

    def dispatched(self, seconds: float) -> None:
        """The dispatcher has looked for work once."""
        self._dispatch.add((), (seconds,))

    def lagged(self, seconds: float) -> None:
        """The event loop came back that much later than it was asked to."""
        self._lag.add((), (seconds,))

    def handled(self, call: tuple[str, str, str], seconds: float) -> None:
        """A call has taken so long."""
        self._handling.add(call, (seconds,))


def _nobody(told: object) -> None:
    """Nobody wants to know."""
