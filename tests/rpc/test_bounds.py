"""Every field of every request at its bounds, and over them: the error names the field, and nothing is stored."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.rpc.bounds import BOUNDS, NOTHING_TO_ACT_ON, a_valid
from tests.rpc.conftest import Target
from tests.rpc.support import refusal_of, refused
from tests.rpc.wire import METHODS, fields, put, send
from tests.support import truth
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIELDS = [(method, path) for method, bounds in BOUNDS.items() for path in bounds]


def with_value(method: str, path: str, value: Any) -> bytes:
    request = a_valid(method, path)
    put(request, path, value)
    return request.SerializeToString()  # type: ignore[no-any-return]


def shown(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) < 60 else f"{text[:60]}..."


@pytest.mark.parametrize("method", METHODS)
async def test_every_field_of_every_request_has_its_bounds_in_the_table(method: str) -> None:
    assert {path for path, _ in fields(method)} <= set(BOUNDS[method])


def stored(url: str) -> list[truth.Row]:
    """How many tasks and schedules there are, but for the tasks of schedules: these fire meanwhile."""
    tasks = "SELECT count(*) FROM task WHERE schedule_seq IS NULL"
    return truth.rows(url, f"SELECT ({tasks}), (SELECT count(*) FROM schedule)")  # noqa: S608


async def operations_ended(url: str) -> None:
    """The good values have started bulk operations, and those that run tasks again store tasks of their own."""
    unfinished = "SELECT count(*) FROM bulk_operation WHERE end_time_us IS NULL"
    await until_async(lambda: truth.rows(url, unfinished) == [(0,)], "the end of the bulk operations")


@pytest.mark.parametrize(("method", "path"), FIELDS)
async def test_a_value_at_its_bound_is_accepted(target: Target, method: str, path: str) -> None:
    for value in BOUNDS[method][path].fits:
        try:
            await send(target.channel, method, with_value(method, path, value))
        except grpc.aio.AioRpcError as error:  # what it names need not exist
            refusal = refusal_of(error)
            assert refusal.reason in NOTHING_TO_ACT_ON, f"{shown(value)}: {refusal.message}"


@pytest.mark.parametrize(("method", "path"), FIELDS)
async def test_a_value_over_its_bound_is_refused_by_its_name_and_nothing_is_stored(
    target: Target, method: str, path: str
) -> None:
    await operations_ended(target.database_url)
    before = stored(target.database_url)
    for value in BOUNDS[method][path].breaks:
        refusal = await refused(send(target.channel, method, with_value(method, path, value)))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT, shown(value)
        assert (refusal.reason, refusal.domain) == ("INVALID_FIELDS", "taskq.v1"), shown(value)
        assert any(field.startswith(path) for field in refusal.faults), f"{shown(value)}: {refusal.faults}"
        for field, rule in refusal.faults.items():
            assert rule.startswith("must "), rule
            assert f"{field} {rule}" in refusal.message
    assert stored(target.database_url) == before
