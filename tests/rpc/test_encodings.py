"""What is on the wire itself: text that is none, unknown values, bytes that are no message, a newer peer's fields."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from tests.rpc.bounds import BOUNDS, NOTHING_TO_ACT_ON, a_valid
from tests.rpc.conftest import Target
from tests.rpc.support import SCHEDULED, a_task, refusal_of, refused
from tests.rpc.wire import METHODS, fields, put, send
from tests.support import truth

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARK = "QQQQ"
NOT_UTF8 = [b"\xff\xfe\xff\xfe", b"\xc3\x28\xa0\xa1", b"\xed\xa0\x80Q", b"\xf8\x88\x80\x80"]
"""Bytes that no encoder makes; half a character; a lone surrogate; more than Unicode has."""
FOR_PEOPLE = ("failed.message", "failed.stack", "progress.message")
"""Text that must not stand in the way of a report, so U+0000 is replaced in it."""


def text_fields() -> list[tuple[str, str, str]]:
    """Every place for text: method, path, and whether it is one, an item, a map's key or a map's value."""
    found = []
    for method in METHODS:
        for path, field in fields(method):
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                found += [(method, path, "key"), (method, path, "value")]
            elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
                found += [(method, path, "struct")]
            elif field.type == FieldDescriptor.TYPE_STRING:
                found += [(method, path, "item" if field.is_repeated else "one")]
    return found


def holding(method: str, path: str, place: str, text: str) -> Any:
    request = a_valid(method, path)
    values: dict[str, Any] = {"one": text, "item": [text], "key": {text: "v"}, "value": {"k": text}}
    put(request, path, {"struct": text} if place == "struct" else values[place])
    return request


async def outcome(target: Target, method: str, request: bytes) -> Any:
    """None when the call was accepted, or met nothing to act on; else how it was refused."""
    try:
        await send(target.channel, method, request)
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
        return None if refusal.reason in NOTHING_TO_ACT_ON else refusal
    return None


@pytest.mark.parametrize(("method", "path", "place"), text_fields())
async def test_text_that_is_not_utf8_is_refused_by_its_field(
    target: Target, method: str, path: str, place: str
) -> None:
    before = truth.count(target.database_url)
    sent = holding(method, path, place, MARK).SerializeToString()
    for wrong in NOT_UTF8:
        refusal = await refused(send(target.channel, method, sent.replace(MARK.encode(), wrong)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
        assert [field.startswith(path) for field in refusal.faults] == [True], refusal.faults
        assert set(refusal.faults.values()) == {"must be UTF-8"}
    assert truth.count(target.database_url) == before


@pytest.mark.parametrize(("method", "path", "place"), text_fields())
async def test_u0000_is_refused_by_its_field_except_in_what_is_for_people(
    target: Target, method: str, path: str, place: str
) -> None:
    refusal = await outcome(target, method, holding(method, path, place, "a\0b").SerializeToString())
    if path.endswith(FOR_PEOPLE) or place == "struct":
        assert refusal is None
    else:
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
        assert any(field.startswith(path) for field in refusal.faults), refusal.faults


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method in METHODS for path, field in fields(method) if field.type == FieldDescriptor.TYPE_ENUM],
)
async def test_an_enum_value_that_nobody_knows_is_refused_by_its_field(target: Target, method: str, path: str) -> None:
    request = a_valid(method, path)
    is_repeated = next(field for at, field in fields(method) if at == path).is_repeated
    put(request, path, [99] if is_repeated else 99)
    refusal = await outcome(target, method, request.SerializeToString())
    where = f"{path}[0]" if is_repeated else path
    assert refusal.faults == {where: "must be one of its named values; is 99"}


async def test_there_are_texts_and_enums_to_be_checked() -> None:
    assert len(text_fields()) >= 39
    assert set(BOUNDS) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
async def test_fields_of_a_newer_peer_are_ignored(target: Target, method: str) -> None:
    newer = b"\xf8\xff\x07\x01" + b"\x82\x80\x08\x05hello"  # fields 16383 and 16384
    plain = a_valid(method)
    assert await outcome(target, method, plain.SerializeToString() + newer) is None


async def test_fields_of_a_newer_peer_inside_a_task_are_ignored_and_a_retry_is_still_the_same(target: Target) -> None:
    task = a_task(task_id="01935000-0000-7000-8000-00000000abcd").SerializeToString() + b"\xf8\xff\x07\x01"
    request = b"\x0a" + bytes([len(task)]) + task
    first = await send(target.channel, "Enqueue", request)
    again = await send(target.channel, "Enqueue", request)
    assert [first.results[0].outcome, again.results[0].outcome] == [  # type: ignore[attr-defined]
        scheduler_pb2.ENQUEUE_OUTCOME_CREATED,
        scheduler_pb2.ENQUEUE_OUTCOME_EXISTING,
    ]
    assert (await target.scheduler.get("01935000-0000-7000-8000-00000000abcd")).state == SCHEDULED


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("garbage", [b"\xff", b"\x0a\x05abc", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 200], ids=repr)
async def test_bytes_that_are_no_message_are_refused_as_malformed(target: Target, method: str, garbage: bytes) -> None:
    refusal = await refused(send(target.channel, method, garbage))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert refusal.domain == "taskq.v1"
    assert refusal.facts == {"message": METHODS[method].input_type.name}


async def test_a_message_that_is_nested_too_deep_is_refused(target: Target) -> None:
    value = b"\x1a\x01x"
    for _ in range(200):
        value = _field(6, _field(1, value))  # a list that holds the one before
    task = _field(2, b"cook") + _field(4, _field(1, _field(1, b"deep") + _field(2, value)))
    refusal = await refused(send(target.channel, "Enqueue", _field(1, task)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    size, length = len(data), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@FUZZ
@given(st.sampled_from(text_fields()), st.text(max_size=600))
async def test_any_text_anywhere_is_accepted_or_refused_by_its_field(
    target: Target, place: tuple[str, str, str], text: str
) -> None:
    method, path, _ = place
    refusal = await outcome(target, method, holding(*place, text).SerializeToString())
    if refusal is not None:
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
        assert any(field.startswith(path) for field in refusal.faults), refusal.faults


@FUZZ
@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=300))
async def test_any_bytes_are_answered_and_never_with_an_error_of_ours(target: Target, method: str, data: bytes) -> None:
    refusal = await outcome(target, method, data)
    assert refusal is None or refusal.code == grpc.StatusCode.INVALID_ARGUMENT, refusal


@FUZZ
@given(st.sampled_from(sorted(method for method in METHODS if a_valid(method).ByteSize())), st.data())
async def test_a_message_with_some_bytes_changed_is_answered_and_never_with_an_error_of_ours(
    target: Target, method: str, data: st.DataObject
) -> None:
    sent = bytearray(a_valid(method).SerializeToString())
    for at in data.draw(st.lists(st.integers(0, len(sent) - 1), max_size=6)):
        sent[at] = data.draw(st.integers(0, 255))
    refusal = await outcome(target, method, bytes(sent))
    assert refusal is None or refusal.code == grpc.StatusCode.INVALID_ARGUMENT, refusal
