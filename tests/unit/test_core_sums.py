"""Sums of what was done, and what a histogram tells of spans."""

from __future__ import annotations

from random import Random

import pytest

from taskq_server.core.sums import Quantiles, Sums, quantiles
from taskq_server.metrics import LATENESS, RUN, count_into
from taskq_server.store import schema

BOUNDS = 1.0, 2.0, 4.0


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([0, 0, 0, 0], Quantiles(0)),
        ([1, 0, 0, 0], Quantiles(1, 1, 1, 1, 1)),
        ([1, 1, 0, 0], Quantiles(2, 1, 2, 2, 2)),
        ([95, 4, 1, 0], Quantiles(100, 1, 1, 2, 4)),
        ([0, 0, 0, 3], Quantiles(3, 4, 4, 4, 4)),
    ],
)
def test_a_histogram_tells_the_bound_that_so_many_do_not_pass(counts: list[int], told: Quantiles) -> None:
    assert quantiles(counts, BOUNDS) == told


@pytest.mark.parametrize("many", [1, 31, 32, 500])
def test_many_values_are_counted_as_each_alone_would_be(many: int) -> None:
    values = [Random(many).choice([0, 0.5, 1, 1.5, 2, 3, 4, 9]) for _ in range(many)]
    together, alone = [0] * 4, [0] * 4
    count_into(together, BOUNDS, values)
    for value in values:
        count_into(alone, BOUNDS, [value])
    assert together == alone
    assert sum(together) == many


def test_sums_are_added_number_by_number() -> None:
    one = Sums(1, 2, 3, 4, 5, 6, [1, 0], [0, 1])
    one.add(Sums(10, 20, 30, 40, 50, 60, [1, 1], [1, 1]))
    assert one == Sums(11, 22, 33, 44, 55, 66, [2, 1], [1, 2])


def test_the_tables_have_a_column_for_each_bucket_of_the_metrics() -> None:
    assert len(LATENESS) + 1 == schema.LATENESS_BUCKETS
    assert len(RUN) + 1 == schema.RUN_BUCKETS
