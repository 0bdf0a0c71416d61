"""The histogram of our own against the library's, and which names become labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from taskq_server.metrics import MANY, MOST_REGISTERED, MOST_UNREGISTERED, OTHER, Names, Spread

BOUNDS = 0.001, 0.1, 1, 60


def told(registry: CollectorRegistry) -> set[str]:
    lines = generate_latest(registry).decode().splitlines()
    return {line for line in lines if not line.startswith("#") and "_created" not in line}


VALUES = st.sampled_from([0.0, 0.001, 0.05, 0.1, 0.5, 1.0, 30.0, 60.0, 1e6])


@given(st.lists(st.lists(VALUES) | st.lists(VALUES, min_size=MANY, max_size=3 * MANY), max_size=5))
def test_many_values_at_once_are_shown_as_the_library_shows_them_one_by_one(batches: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spread = Spread("seconds", "of a thing", ["name"], BOUNDS, ours)
    histogram = Histogram("seconds", "of a thing", ["name"], buckets=BOUNDS, registry=theirs)
    for batch in batches:
        spread.add(("cook",), batch)
        child = histogram.labels("cook")
        for value in batch:
            child.observe(value)
    exact = {line for line in told(ours) if "_sum" not in line}
    assert exact == {line for line in told(theirs) if "_sum" not in line}
    sums = [registry.get_sample_value("seconds_sum", {"name": "cook"}) for registry in (ours, theirs)]
    assert sums[0] == pytest.approx(sums[1])


def test_a_name_that_a_processor_runs_is_a_label_whatever_tasks_have_invented_before() -> None:
    names = Names()
    for i in range(1_000):
        names.waiting(f"order-{i}")
    names.register(["cook"])
    assert names.known("cook") == names.waiting("cook") == "cook"
    assert names.waiting("order-0") == "order-0"
    assert names.waiting("order-999") == OTHER
    assert names.known("order-0") == OTHER


def test_there_are_never_more_labels_than_said() -> None:
    names = Names()
    names.register(f"cook-{i}" for i in range(1_000))
    labels = {names.waiting(f"{word}-{i}") for i in range(1_000) for word in ("cook", "order")}
    assert len(labels) == MOST_REGISTERED + MOST_UNREGISTERED + 1
