"""What the three clients share: options, errors, payloads, times, backoff."""

from __future__ import annotations

import asyncio
import enum
import inspect
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

import grpc
import grpc.aio
import pydantic
import pytest

from client_core import channel, errors, payload, times
from client_core.backoff import Backoff
from client_core.home import Home
from taskq.v1.scheduler_service_pb2 import EnqueueRequest, GetTaskRequest, NewTask
from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from taskq.v1.task_pb2 import Payload
from tests.clients.scripted_scheduler_service import Refusal, ScriptedSchedulerService, serving

# From grpc/impl/channel_arg_names.h of gRPC 1.81; gRPC ignores an unknown key in silence.
KNOWN_KEYS = {
    "grpc.primary_user_agent",
    "grpc.keepalive_time_ms",
    "grpc.keepalive_timeout_ms",
    "grpc.keepalive_permit_without_calls",
    "grpc.http2.max_pings_without_data",
    "grpc.http2.bdp_probe",
    "grpc.initial_reconnect_backoff_ms",
    "grpc.min_reconnect_backoff_ms",
    "grpc.max_reconnect_backoff_ms",
    "grpc.enable_retries",
    "grpc.service_config_disable_resolution",
    "grpc.use_local_subchannel_pool",
    "grpc.ssl_target_name_override",
    "grpc.max_receive_message_length",
    "grpc.max_send_message_length",
    "grpc.max_metadata_size",
    "grpc.absolute_max_metadata_size",
}


def test_one_address_is_taken_as_it_is() -> None:
    for address in ("queue:50051", "127.0.0.1:1", "unix:/tmp/s", "dns:///queue:1"):
        assert channel.target(address) == address


@pytest.mark.parametrize(
    ("address", "scheme", "servers"),
    [
        ("127.0.0.1:1,127.0.0.2:2, 127.0.0.3:3", "ipv4:", ["127.0.0.1:1", "127.0.0.2:2", "127.0.0.3:3"]),
        ("localhost:1,localhost:2", "ipv4:", ["127.0.0.1:1", "127.0.0.1:2"]),
        ("[::1]:1,[::2]:2", "ipv6:", ["[::1]:1", "[::2]:2"]),
    ],
)
def test_of_several_servers_each_process_begins_with_one_and_goes_round(
    monkeypatch: pytest.MonkeyPatch, address: str, scheme: str, servers: list[str]
) -> None:
    for turn in range(5):
        monkeypatch.setattr(channel, "_turn", turn)
        for skip in range(4):
            first = (turn + skip) % len(servers)
            assert channel.target(address, skip) == scheme + ",".join(servers[first:] + servers[:first])


@pytest.mark.parametrize("address", ["a:1,b:2", "127.0.0.1:1,[::1]:2", "127.0.0.1,127.0.0.2:2", "127.0.0.1:1,", ","])
def test_several_addresses_that_grpc_could_not_tell_apart_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must be IP addresses of one version"):
        channel.target(address)


def test_every_channel_option_is_one_that_grpc_knows() -> None:
    assert {key for key, _ in channel.OPTIONS} <= KNOWN_KEYS
    library = inspect.getfile(grpc._cython.cygrpc)
    with open(library, "rb") as file:  # noqa: PTH123
        binary = file.read()
    assert [key for key, _ in channel.OPTIONS if key.encode() not in binary] == []


def test_a_dead_connection_is_found_and_a_restarted_server_too() -> None:
    options = dict(channel.OPTIONS)
    assert options["grpc.keepalive_time_ms"] == 20_000
    assert options["grpc.keepalive_timeout_ms"] == 10_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0
    assert options["grpc.max_reconnect_backoff_ms"] == 2_000
    assert options["grpc.enable_retries"] == 0
    assert options["grpc.use_local_subchannel_pool"] == 1


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKQ_ADDRESS", raising=False)
    assert channel.address_from_environment() == channel.DEFAULT_ADDRESS == "127.0.0.1:50051"
    monkeypatch.setenv("TASKQ_ADDRESS", "queue:1")
    assert channel.address_from_environment() == "queue:1"


def _fork_and_report(attempt: Callable[[], object]) -> str:
    """What `attempt` raises in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os.write(writing, b"nothing")
        except BaseException as error:  # noqa: BLE001 - a child that goes on would run the rest of the tests
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_is_told_that_grpc_does_not_work_there() -> None:
    opened = channel.open_channel("127.0.0.1:1")
    home = Home("the thing")

    said = _fork_and_report(lambda: channel.open_blocking_channel("127.0.0.1:1"))
    assert said.startswith("RuntimeError: process")
    assert "spawn" in said
    assert "before it forked" in _fork_and_report(home.check)

    home.check()
    await opened.close()


async def test_a_second_event_loop_is_told_that_it_is_not_the_first() -> None:
    home = Home("the thing")

    async def in_another_loop() -> None:
        home.check()

    with pytest.raises(RuntimeError, match="the thing belongs to another event loop"):
        await asyncio.to_thread(asyncio.run, in_another_loop())
    assert not home.is_gone


def test_what_was_opened_in_a_closed_loop_is_gone() -> None:
    async def open_something() -> Home:
        return Home("the thing")

    assert asyncio.run(open_something()).is_gone


# errors


@pytest.mark.parametrize("blocking", [False, True])
async def test_an_error_carries_what_the_server_said_in_its_details(blocking: bool) -> None:
    service = ScriptedSchedulerService()
    service.script.append(
        Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELDS",
            fields=(("tasks[0].name", "is empty"),),
            retry_delay=0.25,
            fact="one",
        )
    )
    async with serving(service) as address:
        error = await _error_of_enqueue(address, blocking)
    assert isinstance(error, errors.InvalidArgument)
    assert isinstance(error, ValueError)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELDS"
    assert error.metadata == {"fact": "one"}
    assert error.fields == [("tasks[0].name", "is empty")]
    assert error.retry_delay == 0.25
    assert "tasks[0].name: is empty" in str(error)


async def _error_of_enqueue(address: str, blocking: bool) -> errors.TaskqError:
    def call_blocking() -> None:
        with channel.open_blocking_channel(address) as opened:
            SchedulerServiceStub(opened).Enqueue(EnqueueRequest(), timeout=5)

    try:
        if blocking:
            await asyncio.to_thread(call_blocking)
        else:
            async with channel.open_channel(address) as opened:
                await SchedulerServiceStub(opened).Enqueue(EnqueueRequest(), timeout=5)
    except grpc.RpcError as error:
        return errors.from_rpc_error(error)
    raise AssertionError("no error")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_an_error_of_its_own(code: grpc.StatusCode) -> None:
    empty = grpc.aio.Metadata()
    error = errors.from_rpc_error(grpc.aio.AioRpcError(code, empty, empty, details="why"))
    assert error.code is code
    assert type(error).__name__.upper() == code.name.replace("_", "")
    assert type(error).__name__ in (errors.__doc__ or "")
    assert error.retry_delay is None
    assert str(error) == "why"


def test_details_that_cannot_be_read_are_left_out() -> None:
    broken = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = errors.from_rpc_error(
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), broken, details="proxy")
    )
    assert isinstance(error, errors.Unavailable)
    assert error.reason == ""


def test_a_deadline_is_a_timeout() -> None:
    assert issubclass(errors.DeadlineExceeded, TimeoutError)


# payloads


class Course(enum.Enum):
    MAIN = "main"


@dataclass
class Dish:
    name: str
    grams: float = 0.0
    course: Course = Course.MAIN
    parts: list[str] = field(default_factory=list)
    next: Dish | None = None
    at: datetime | None = None


class Order(TypedDict):
    dish: str
    number: NotRequired[int]


class Guest(pydantic.BaseModel):
    name: str
    seats: int = 1


def test_nothing_is_no_payload() -> None:
    assert payload.encode(None) is None
    assert payload.decode(None) is None
    assert payload.decode(Payload()) is None


@pytest.mark.parametrize("value", [0, "", [], {}, {"dish": "süß \u0000"}, 9007199254740993, [1, None], "\U0001f35d"])
def test_json_comes_back_as_it_was(value: object) -> None:
    encoded = payload.encode(value)
    assert encoded is not None
    assert encoded.content_type == "application/json"
    assert payload.decode(encoded) == value


@pytest.mark.parametrize("value", [b"", b"\x00\xff", bytearray(b"ab"), memoryview(b"ab")])
def test_bytes_are_kept_as_they_are(value: bytes) -> None:
    encoded = payload.encode(value)
    assert encoded is not None
    assert encoded.content_type == "application/octet-stream"
    assert payload.decode(encoded) == bytes(value)
    assert payload.decode(encoded, bytes) == bytes(value)


def test_a_protobuf_message_travels_as_an_any() -> None:
    encoded = payload.encode(GetTaskRequest(task_id="t1"))
    assert encoded is not None
    assert encoded.content_type == "application/protobuf"
    assert payload.decode(encoded) == GetTaskRequest(task_id="t1")
    assert payload.decode(encoded, GetTaskRequest) == GetTaskRequest(task_id="t1")
    with pytest.raises(ValueError, match=r"must be taskq\.v1\.NewTask"):
        payload.decode(encoded, NewTask)


def test_declared_types_come_back_as_declared() -> None:
    dish = Dish("soup", 2, parts=["leek"], next=Dish("stew"), at=datetime(2026, 1, 1, tzinfo=UTC))
    assert payload.decode(payload.encode(dish), Dish) == dish
    order: Order = {"dish": "soup"}
    assert payload.decode(payload.encode(order), Order) == order
    assert payload.decode(payload.encode(Guest(name="Ada")), Guest) == Guest(name="Ada")
    assert payload.decode(payload.encode([1, 2]), tuple[int, ...]) == (1, 2)  # type: ignore[arg-type]
    assert payload.decode(payload.encode({"a": Decimal("1.5")}), dict[str, Decimal]) == {"a": Decimal("1.5")}
    identity = UUID(int=7)
    assert payload.decode(payload.encode(identity), UUID) == identity


@pytest.mark.parametrize(
    ("value", "into", "place"),
    [
        ({"grams": 1}, Dish, "payload lacks name"),
        ({"name": "x", "salt": 1}, Dish, "payload has salt"),
        ({"name": 1}, Dish, r"payload\.name is int 1; must be str"),
        ({"name": "x", "parts": ["a", 2]}, Dish, r"payload\.parts\[1\]"),
        ({"name": "x", "course": "dessert"}, Dish, r"payload\.course"),
        ({"number": 1}, Order, "payload lacks dish"),
        ({"seats": 1}, Guest, "name"),
        ("x", Literal["a"], "payload is str"),
        (True, int, "payload is bool True; must be int"),
        ([1], tuple[int, int], "payload is list"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(value: object, into: Any, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        payload.decode(payload.encode(value), into)


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}, "\ud800"])
def test_what_is_not_json_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError):
        payload.encode(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, {"f": print}, b"x".__iter__()])
def test_what_cannot_be_written_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        payload.encode(value)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff", "application/json"),
        (b"[NaN]", "application/json"),
        (b"\xff", "application/protobuf"),
        (b"x", "application/x-unknown"),
    ],
)
def test_bytes_that_are_not_what_they_claim_are_a_value_error(data: bytes, content_type: str) -> None:
    with pytest.raises(ValueError):
        payload.decode(Payload(data=data, content_type=content_type))


def test_a_program_can_add_a_content_type() -> None:
    payload.register_codec(
        "application/x-upper", lambda text: text.upper().encode(), lambda data: data.decode().lower()
    )
    encoded = payload.encode("soup", "application/x-upper")
    assert encoded == Payload(data=b"SOUP", content_type="application/x-upper")
    assert payload.decode(encoded) == "soup"


def test_parameters_of_a_content_type_do_not_matter() -> None:
    assert payload.decode(Payload(data=b'{"a":1}', content_type="Application/JSON; charset=utf-8")) == {"a": 1}


def test_json_of_other_writers_is_compact_and_utf8() -> None:
    encoded = payload.encode({"a": "ü"})
    assert encoded is not None
    assert json.loads(encoded.data) == {"a": "ü"}
    assert encoded.data == '{"a":"ü"}'.encode()


# times


@pytest.mark.parametrize(
    ("span", "microseconds"),
    [
        (timedelta(minutes=1, microseconds=1), 60_000_001),
        (2, 2_000_000),
        (0.25, 250_000),
        ("500ms", 500_000),
        ("30s", 30_000_000),
        ("1.5m", 90_000_000),
        ("1h", 3_600_000_000),
        ("7d", 604_800_000_000),
        (" 10 us ", 10),
        (-0.5, -500_000),
    ],
)
def test_a_span_is_read_as_people_write_it(span: times.Span, microseconds: int) -> None:
    assert times.to_microseconds(span) == microseconds
    assert times.from_duration(times.to_duration(span)) == timedelta(microseconds=microseconds)


@pytest.mark.parametrize(
    "span", ["", "10", "s", "1w", "-1s", "1e3s", "١s", math.nan, math.inf, 10**30, "9" * 5_000 + "s"]
)
def test_what_is_not_a_span_is_a_value_error(span: times.Span) -> None:
    with pytest.raises(ValueError):
        times.to_duration(span)


@pytest.mark.parametrize("span", [True, None, [], b"1s"])
def test_what_cannot_be_a_span_is_a_type_error(span: Any) -> None:
    with pytest.raises(TypeError):
        times.to_duration(span)


def test_a_moment_is_epoch_seconds_or_an_aware_datetime() -> None:
    moment = datetime(2026, 1, 1, 1, 0, 0, 123_456, tzinfo=timezone(timedelta(hours=1)))
    assert times.from_timestamp(times.to_timestamp(moment)) == moment
    assert times.from_timestamp(times.to_timestamp(moment)).tzinfo is UTC
    assert times.to_timestamp(1_767_225_600.123456) == times.to_timestamp(moment)
    assert times.to_timestamp(0).seconds == 0


@pytest.mark.parametrize(
    "moment", [datetime(2026, 1, 1), -1, 253_402_300_800, 1_767_225_600_000, math.nan, math.inf, 10**400]
)
def test_a_naive_or_impossible_moment_is_a_value_error(moment: times.Moment) -> None:
    with pytest.raises(ValueError):
        times.to_timestamp(moment)


# backoff


def test_delays_grow_to_the_cap_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0, uniform=lambda low, high: high)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next() == 0.5


def test_delays_are_spread_from_zero() -> None:
    backoff = Backoff(1.0, 1.0)
    drawn = [backoff.next() for _ in range(1_000)]
    assert min(drawn) < 0.1
    assert max(drawn) > 0.9
    assert all(0 <= delay <= 1 for delay in drawn)


def test_a_client_that_tries_for_weeks_still_has_a_delay() -> None:
    backoff = Backoff(1.0, 30.0, uniform=lambda low, high: high)
    assert {backoff.next() for _ in range(5_000)} >= {30.0}
