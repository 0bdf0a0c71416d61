"""The language in which tasks are asked for: what may be written, what it means, and what is wrong with the rest."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_server.core.filter import (
    EVERYTHING,
    KEYS,
    MOST_CHARACTERS,
    MOST_TERMS,
    PRESENT,
    Filter,
    FilterRefused,
    Flag,
    Moment,
    Op,
    Term,
    Text,
    Value,
    parse,
)
from taskq_server.core.task import TaskState

ID = "019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10"
NEW_YEAR_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z."""


def the_term(text: str) -> Term:
    (term,) = parse(text).terms
    return term


def refusal(text: str) -> FilterRefused:
    with pytest.raises(FilterRefused) as caught:
        parse(text)
    return caught.value


# ── what may be written ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("state:FAILED", (TaskState.FAILED,)),
        ("state:failed", (TaskState.FAILED,)),
        ("state:FAILED,CANCELLED", (TaskState.CANCELLED, TaskState.FAILED)),
        ("is:due", (Flag.DUE,)),
        (f"id:{ID}", (uuid.UUID(ID),)),
        (f"id:{ID.upper()}", (uuid.UUID(ID),)),
        ("rerun_of:*", (PRESENT,)),
        ("name:kitchen.cook", (Text("kitchen.cook"),)),
        ("name:kitchen.*", (Text("kitchen.", begins=True),)),
        ("tag:*", (Text("", begins=True),)),
        ('tag:"two words"', (Text("two words"),)),
        ('tag:"two "*', (Text("two ", begins=True),)),
        ('tag:"a*"', (Text("a*"),)),
        (r'tag:"a \"b\" \\"', (Text('a "b" \\'),)),
        ("error:a*b", (Text("a*b"),)),
        ("error:ends*", (Text("ends*"),)),
        ("error:*", (Text("", begins=True),)),
        ("requires:region=eu", (Text("region = eu"),)),
        ('requires:"zone in (b, a)"', (Text("zone in (a, b)"),)),
        ("requires:!spot", (Text("!spot"),)),
        ("requires:region", (Text("region"),)),
        ("priority:5", (5,)),
        ("attempt:0", (0,)),
        ("finish_time:*", (PRESENT,)),
        ("lease_time>0", (Moment(0),)),
        ("due_time<1767225600", (Moment(NEW_YEAR_US),)),
        ("due_time<2026-01-01", (Moment(NEW_YEAR_US),)),
        ("due_time<2026-01-01T00:00", (Moment(NEW_YEAR_US),)),
        ("due_time<2026-01-01T01:00:00+01:00", (Moment(NEW_YEAR_US),)),
        ("due_time<2026-01-01T00:00:00.5Z", (Moment(NEW_YEAR_US + 500_000),)),
        ("due_time<now", (Moment(0, moves=True),)),
        ("due_time<now-5m", (Moment(-300_000_000, moves=True),)),
        ("due_time<now+1h30m", (Moment(5_400_000_000, moves=True),)),
    ],
)
def test_what_a_value_may_look_like(text: str, values: tuple[Value, ...]) -> None:
    assert the_term(text).values == values


@pytest.mark.parametrize(
    ("text", "op", "negated"),
    [
        ("priority:5", Op.IS, False),
        ("priority=5", Op.IS, False),
        ("priority!=5", Op.IS, True),
        ("-priority:5", Op.IS, True),
        ("-priority!=5", Op.IS, False),
        ("priority<5", Op.BELOW, False),
        ("priority<=5", Op.AT_MOST, False),
        ("priority>5", Op.ABOVE, False),
        ("-priority>=5", Op.AT_LEAST, True),
    ],
)
def test_how_a_value_may_be_compared(text: str, op: Op, negated: bool) -> None:
    assert the_term(text) == Term("priority", op, (5,), negated)


def test_no_term_at_all_asks_for_every_task() -> None:
    assert parse("") == parse(" \n ") == EVERYTHING
    assert str(EVERYTHING) == ""


def test_terms_that_differ_by_spelling_alone_are_one_filter() -> None:
    one = parse(f'  state:FAILED,cancelled   name="kitchen.cook" due_time<now-60m rerun_of:{ID}')
    other = parse(f"due_time<now-1h rerun_of={ID.upper()} name:kitchen.cook state=CANCELLED,FAILED,FAILED")
    assert one == other
    assert str(one) == f"due_time<now-1h name:kitchen.cook rerun_of:{ID} state:CANCELLED,FAILED"


def test_a_time_that_moves_is_told_by_the_clock() -> None:
    (moment,) = the_term("due_time<now-5m").values
    assert isinstance(moment, Moment)
    assert moment.at(NEW_YEAR_US) == NEW_YEAR_US - 300_000_000
    assert Moment(NEW_YEAR_US).at(0) == NEW_YEAR_US


def test_a_text_is_compared_whole_or_by_its_beginning_and_none_is_like_no_text() -> None:
    assert Text("ab").matches("ab")
    assert not Text("ab").matches("abc")
    assert Text("ab", begins=True).matches("abc")
    assert Text("", begins=True).matches("")
    assert not Text("", begins=True).matches(None)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("stat:FAILED", 1, "one of the keys id, state, is, name"),
        ("name:a stat:FAILED", 8, "one of the keys"),
        ("-stat:FAILED", 2, "one of the keys"),
        ("kitchen", 1, "one of the keys"),
        ("-", 2, "one of the keys"),
        ("name:a\u2003§", 8, "one of the keys"),
        ("name", 5, "one of : = != after name"),
        ("name<a", 5, "one of : = != after name"),
        ("is!=due", 3, "one of : after is"),
        ("due_time:now", 9, "one of < <= > >= after due_time"),
        ("name:", 6, "a text, or how texts begin"),
        ("name: a", 6, "a text, or how texts begin"),
        ('name:""', 6, "a text that is not empty"),
        ('error:""', 7, "a text that is not empty"),
        ("name:a*b", 6, "a * at the end alone"),
        ('name:"a', 6, 'a closing "'),
        (r'name:"a\n"', 6, 'a closing "'),
        ('name:"a"b', 9, "a comma or a space after a value"),
        ('name:a"b"', 7, "a comma or a space after a value"),
        ("state:FAILED,", 14, "one of SCHEDULED, RUNNING, SUCCEEDED, FAILED, CANCELLED"),
        ("state:FAILED,LOST", 14, "one of SCHEDULED"),
        ("state:*", 7, "one of SCHEDULED"),
        ("is:ready", 4, "one of due, retrying, unfinished, finished"),
        ("id:42", 4, "a UUID"),
        ("id:*", 4, "a UUID"),
        (f"id:{{{ID.replace('-', '')}}}--", 4, "a UUID"),
        ("priority:10", 10, "a number of 0 to 9"),
        ("priority:-1", 10, "a number of 0 to 9"),
        ("priority:٥", 10, "a number of 0 to 9"),
        ("attempt:2147483648", 9, "a whole number"),
        ("priority<5,6", 11, "a single value after <"),
        ("due_time<tomorrow", 10, "a time such as"),
        ("due_time<2026-02-30", 10, "a time such as"),
        ("due_time<1969-12-31", 10, "a time such as"),
        ("due_time<9999-12-31T23:59:59-01:00", 10, "a time such as"),
        ("due_time<0001-01-01T00:00+01:00", 10, "a time such as"),
        ("due_time<now-5", 10, "a time such as"),
        ("due_time<now-9999d", 10, "a time such as"),
        ("due_time<999999999999", 10, "a time such as"),
        ("finish_time<*", 13, "a time such as"),
        ("requires:region==eu", 10, "a label, or what is required of one"),
        ("name:a\0", 7, "no U+0000"),
    ],
)
def test_what_is_no_filter_is_told_where_and_what_is_expected(text: str, position: int, expected: str) -> None:
    refused = refusal(text)
    assert (refused.position, refused.expected[: len(expected)]) == (position, expected)
    assert f"at character {position}; has " in str(refused)


def test_whoever_names_an_unknown_key_is_told_of_every_key() -> None:
    assert all(key in str(refusal("colour:red")) for key in KEYS)


def test_a_filter_is_bounded() -> None:
    parse(" ".join(f"tag:{i}" for i in range(MOST_TERMS)))
    assert refusal(" ".join(f"tag:{i}" for i in range(MOST_TERMS + 1))).expected == "an end after 32 terms"
    parse("tag:" + "a" * (MOST_CHARACTERS - 4))
    assert refusal("tag:" + "a" * (MOST_CHARACTERS - 3)).expected == "no more than 1,024 characters"
    spelt_out = " ".join(f"-enqueue_time<={i}" for i in range(MOST_TERMS))
    assert refusal(spelt_out).expected == "no more than 1,024 characters once it is spelt out"


def test_what_was_found_is_shown_in_part() -> None:
    assert len(str(refusal("x" * 1_000))) < 500


# ── whatever is written ──────────────────────────────────────────────────────────────────────────────────────────────

SIGNS = ":", "=", "!=", "<", "<=", ">", ">=", "-", " ", "\t", ",", '"', "\\", "*"
SOME_VALUES = (
    *("FAILED", "running", "due", ID, "0", "7", "now", "now-1h", "now+1us", "2026-01-01T00:00:00.25Z"),
    *("a.b/c", "x=y", "k in (b, a)", "é"),
)
PIECES = st.sampled_from([*KEYS, *SIGNS, *SOME_VALUES])
SEEMING = st.lists(PIECES, max_size=24).map("".join)
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


TERMS = st.one_of(
    st.builds("{}name:{}{}".format, st.sampled_from(["", "-"]), WORDS.map(quoted), st.sampled_from(["", "*"])),
    st.builds("error:{}".format, WORDS.map(quoted)),
    st.builds("tag!={},{}".format, WORDS.map(quoted), WORDS.map(quoted)),
    st.builds("priority{}{}".format, st.sampled_from([":", "<", ">="]), st.integers(0, 9)),
    st.builds("due_time<now{}{}us".format, st.sampled_from("+-"), st.integers(0, 999_999_999)),
    st.builds("finish_time>={}".format, st.integers(0, 253_402_300_799)),
)


@given(st.one_of(st.text(), SEEMING))
def test_whatever_text_is_a_filter_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except FilterRefused as refused:
        assert 1 <= refused.position <= len(text) + 1
    else:
        assert parse(str(found)) == found


@given(st.lists(TERMS, min_size=1, max_size=8))
def test_a_filter_is_what_its_canonical_text_says(terms: list[str]) -> None:
    found = parse(" ".join(terms))
    assert parse(str(found)) == found
    assert found == Filter(parse(" ".join(reversed(terms))).terms)
