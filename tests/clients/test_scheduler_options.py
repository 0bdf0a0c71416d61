"""What a task may ask for, checked before anything is sent."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from client_core.times import from_duration
from scheduler_client import InvalidArgument, Retry, new_task
from taskq.v1.scheduler_service_pb2 import DedupConflict, DedupHold


def test_every_fault_is_named_at_once_and_nothing_is_sent() -> None:
    with pytest.raises(InvalidArgument) as refused:
        new_task("a b", {"x": float("nan")}, priority=10, at=1, delay=1, key="", tags="vip")
    assert sorted(field for field, _ in refused.value.fields) == [
        "delay",
        "key",
        "name",
        "payload",
        "priority",
        "tags",
    ]
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("task_id", "not-a-uuid"),
        ("task_id", 5),
        ("at", datetime(2026, 1, 1)),
        ("at", "tomorrow"),
        ("at", -1),
        ("delay", -1),
        ("delay", "3651d"),
        ("priority", -1),
        ("priority", True),
        ("priority", 2.0),
        ("requires", "zone = eu"),
        ("requires", ["x"] * 17),
        ("requires", ["x" * 513]),
        ("requires", [""]),
        ("tags", [5]),
        ("tags", ["x"] * 33),
        ("headers", {"k" * 129: ""}),
        ("headers", {"": ""}),
        ("headers", {"k": 5}),
        ("headers", {"k": "v" * 4_097}),
        ("headers", {str(i): "" for i in range(65)}),
        ("headers", {"k": "\ud800"}),
        ("retry", 5),
        ("run_timeout", 0),
        ("run_timeout", "366d"),
        ("retention", "3651d"),
        ("key", "ü"),
        ("key", "x" * 257),
        ("expire_after", 0),
        ("expire_time", -1),
    ],
)
def test_an_option_out_of_bounds_is_refused_by_its_name(option: Any, value: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        new_task("unit.any", **{option: value})
    assert [field for field, _ in refused.value.fields] == [option]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"on_conflict": "reject"}, "key"),
        ({"key": "k", "on_conflict": "explode"}, "on_conflict"),
        ({"key": "k", "key_hold": "ttl"}, "key_hold"),
        ({"key": "k", "key_ttl": 0}, "key_ttl"),
        ({"key": "k", "key_scope": "a b"}, "key_scope"),
        ({"at": 100, "expire_time": 100}, "expire_time"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        new_task("unit.any", **options)
    assert [name for name, _ in refused.value.fields] == [field]


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="prio: no such option"):
        new_task("unit.any", prio=5)  # type: ignore[call-arg]


def test_a_key_travels_with_its_policy() -> None:
    message = new_task(
        "unit.any", key="order-42", key_scope="orders", on_conflict="debounce", key_ttl="1h", key_hold="both"
    )
    assert message.dedup.key == "order-42"
    assert message.dedup.scope == "orders"
    assert message.dedup.on_conflict == DedupConflict.DEDUP_CONFLICT_DEBOUNCE
    assert message.dedup.hold == DedupHold.DEDUP_HOLD_BOTH
    assert from_duration(message.dedup.ttl) == timedelta(hours=1)


def test_an_expiry_is_counted_from_the_due_time() -> None:
    assert new_task("unit.any", at=100, expire_after="30s").expire_time.seconds == 130
    before = int(time.time())
    assert 90 <= new_task("unit.any", delay=60, expire_after="30s").expire_time.seconds - before <= 92
    assert new_task("unit.any", at=100, expire_after="30s", expire_time=200).expire_time.seconds == 200
    with pytest.raises(InvalidArgument, match="expire_after"):
        new_task("unit.any", at=253_402_300_799, expire_after="1d")


@pytest.mark.parametrize(
    "policy",
    [
        {"max_attempts": 0},
        {"max_attempts": 1_001},
        {"multiplier": 0.5},
        {"multiplier": float("nan")},
        {"initial_delay": -1},
        {"max_delay": "31d"},
        {"jitter": "some"},
        {"non_retryable_errors": "ValueError"},
        {"non_retryable_errors": [""]},
    ],
)
def test_a_retry_policy_out_of_bounds_is_refused_when_it_is_made(policy: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(policy))):
        Retry(**policy)
