"""What a rule of a schedule may say, and when it fires."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq_server.core.schedule import DstPolicy, Recurrence, Rule, faults
from taskq_server.core.schedule.cron import read
from tests.unit.schedules import DAY, HOUR, ID, MINUTE, SECOND, a_cron, all_of, at, locals_of


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("@hourly", "2026-01-01T01:00", "2026-01-01T02:00"),
        ("@daily", "2026-01-02T00:00", "2026-01-03T00:00"),
        ("@midnight", "2026-01-02T00:00", "2026-01-03T00:00"),
        ("@weekly", "2026-01-04T00:00", "2026-01-11T00:00"),
        ("@monthly", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("@yearly", "2027-01-01T00:00", "2028-01-01T00:00"),
        ("@annually", "2027-01-01T00:00", "2028-01-01T00:00"),
        ("@every 10m", "2026-01-01T00:10", "2026-01-01T00:20"),
        ("@every 1h30m", "2026-01-01T01:30", "2026-01-01T03:00"),
        ("30 2 * * ?", "2026-01-01T02:30", "2026-01-02T02:30"),
        ("15 30 2 * * *", "2026-01-01T02:30:15", "2026-01-02T02:30:15"),
        ("0 9 * * mon-fri", "2026-01-01T09:00", "2026-01-02T09:00"),
        ("0 0 13 * 5", "2026-01-02T00:00", "2026-01-09T00:00"),
        ("0 0 */5 * MON", "2026-01-26T00:00", "2026-02-16T00:00"),
        ("0 12 LW * *", "2026-01-30T12:00", "2026-02-27T12:00"),
        ("0 0 * * MON#2", "2026-01-12T00:00", "2026-02-09T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00", "2032-02-29T00:00"),
        ("0 0 29 2 4", "2026-02-05T00:00", "2026-02-12T00:00"),
        ("5-5/10 * * * *", "2026-01-01T00:05", "2026-01-01T01:05"),
        ("CRON_TZ=Asia/Tokyo 0 9 * * *", "2026-01-02T00:00", "2026-01-03T00:00"),
        ("TZ=Asia/Tokyo @daily", "2026-01-01T15:00", "2026-01-02T15:00"),
    ],
)
def test_an_expression_means(text: str, first: str, second: str) -> None:
    recurrence = a_cron(text)

    assert faults(recurrence.rule) == []
    assert recurrence.next_after(at("2026-01-01T00:00")) == at(first)
    assert recurrence.next_after(at(first)) == at(second)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "5 fields"),
        ("* * * *", "5 fields"),
        ("* * * * * * *", "5 fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day-of-month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day-of-week"),
        ("60 * * * * *", "second"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("0 0 1-100000000 * *", "day-of-month"),
        ("0 0 30 2 *", "day"),
        ("0 0 31 2,4,6,9,11 *", "day"),
        ("* * */20 * 1L", "day that some year has"),
        ("@reboot", "not be @reboot"),
        ("@sometimes", "5 fields"),
        ("@every", "span"),
        ("@every 0s", "1s"),
        ("@every 10", "span"),
        ("@every 9999999d", "3660d"),
        ("H(70-80) * * * *", "hash"),
        ("H/0 * * * *", "hash"),
        ("٥ * * * *", "minute"),
        ("CRON_TZ=Mars/Base @daily", "time zone"),
        ("0," * 128 + "0 * * * *", "256 characters"),
    ],
)
def test_an_expression_that_cannot_be_is_refused_by_its_field_and_rule(text: str, rule: str) -> None:
    (fault,) = faults(Rule(crons=("@daily", text)))

    assert fault.field == "crons[1]"
    assert fault.rule.startswith("must ") and rule in fault.rule
    assert len(fault.rule) < 250


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (Rule(), "crons"),
        (Rule(crons=("@daily",) * 33), "crons"),
        (Rule(crons=("@daily",), excluded_crons=("0 9 * * *",) * 17), "excluded_crons"),
        (Rule(interval_us=SECOND - 1), "interval"),
        (Rule(interval_us=-SECOND), "interval"),
        (Rule(interval_us=3_661 * DAY), "interval"),
        (Rule(interval_us=MINUTE, phase_us=MINUTE), "phase"),
        (Rule(interval_us=MINUTE, phase_us=-1), "phase"),
        (Rule(crons=("@daily",), phase_us=1), "phase"),
        (Rule(dates_us=(5, -1)), "dates[1]"),
        (Rule(dates_us=(1 << 62,)), "dates[0]"),
        (Rule(dates_us=tuple(range(1_001))), "dates"),
        (Rule(crons=("@daily",), jitter_us=-1), "jitter"),
        (Rule(crons=("@daily",), jitter_us=DAY + 1), "jitter"),
        (Rule(crons=("@daily",), dst=7), "dst"),  # type: ignore[arg-type]
        (Rule(crons=("@daily",), excluded_crons=("* * *",)), "excluded_crons[0]"),
        (Rule(crons=("@daily",), excluded_crons=("@every 10m",)), "excluded_crons[0]"),
        (Rule(crons=("@daily",), excluded_dates=("2026-02-30",)), "excluded_dates[0]"),
        (Rule(crons=("@daily",), excluded_dates=("2026-02-03/2026-02-01",)), "excluded_dates[0]"),
        (Rule(crons=("@daily",), excluded_dates=("2026-02-03",) * 1_001), "excluded_dates"),
        (Rule(crons=("@daily",), start_us=-1), "start_time"),
        (Rule(crons=("@daily",), end_us=1 << 62), "end_time"),
        (Rule(crons=("@daily",), start_us=DAY, end_us=DAY), "end_time"),
        (Rule(crons=("@daily",), start_us=DAY + 1, end_us=DAY + 2), "end_time"),
        (Rule(dates_us=(DAY,), start_us=2 * DAY), "start_time"),
        (Rule(dates_us=(DAY,), excluded_dates=("1970-01-02",)), "excluded_dates"),
        (Rule(crons=("@daily",), excluded_crons=("* 0 * * *",)), "excluded_crons"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_its_field(rule: Rule, field: str) -> None:
    (fault,) = faults(rule)

    assert fault.field == field
    assert fault.rule.startswith("must ")


def test_every_fault_is_named_at_once() -> None:
    rule = Rule(crons=("x", "@daily", "@reboot"), time_zone="Mars/Base", jitter_us=-1, excluded_dates=("tomorrow",))

    assert [fault.field for fault in faults(rule)] == [
        "crons[0]",
        "crons[2]",
        "jitter",
        "time_zone",
        "excluded_dates[0]",
    ]


CRAFTED = [
    Rule(crons=("* * * * * *",), excluded_crons=("0 * * * * *", "1-59 * * * * *")),
    Rule(crons=("* * * * * *",) * 2, excluded_crons=("* * * * *",)),
    Rule(crons=("59 59 23 29 2 MON#5",), time_zone="Australia/Lord_Howe"),
    Rule(crons=("0 0 29 2 *",), excluded_crons=("* * * 2 *",), time_zone="America/Santiago"),
    Rule(crons=("* * * * *",), excluded_crons=tuple(f"{i}-59/16 * * * *" for i in range(16))),
    Rule(crons=("* * * * *",), excluded_dates=tuple(f"{1970 + 2 * i}-01-01/{1971 + 2 * i}-12-30" for i in range(40))),
    Rule(crons=("0," * 120 + "0 * * * *",)),
    Rule(crons=("x" * 10_000_000,)),
    Rule(crons=("9" * 250 + " * * * *",)),
    Rule(crons=("*/1" * 20 + " * * * *",)),
    Rule(crons=("@every " + "9" * 200 + "d",)),
]


@pytest.mark.parametrize("rule", CRAFTED, ids=range(len(CRAFTED)))
def test_no_crafted_rule_costs_much_time_or_memory(rule: Rule) -> None:
    faults(Rule(crons=("@daily",), time_zone=rule.time_zone))
    begun = time.process_time()
    faults(rule)
    took = time.process_time() - begun
    tracemalloc.start()
    try:
        faults(rule)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert took < 0.1
    assert most < 64 << 10


NOISE = st.text("0123456789*/-,#?LWHhMONFEBT=@ ()", max_size=30) | st.text(max_size=20)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["*", "0", "*/7", "H", "H/5", "1-5", "L", "2#1"]) | NOISE, min_size=5, max_size=6)
    | st.lists(NOISE)
)
def test_no_text_does_worse_than_to_be_refused(fields: list[str]) -> None:
    rule = Rule(crons=(" ".join(fields),))

    if not faults(rule):
        recurrence = Recurrence(rule, ID)
        following = recurrence.next_after(at("2026-01-01"))
        assert following is not None
        assert following > at("2026-01-01")
        assert recurrence.explain()


def ids(count: int) -> list[bytes]:
    return [n.to_bytes(16) for n in range(count)]


def test_hashed_fields_spread_schedules_and_stay_as_they_are() -> None:
    texts = [read("H H * * *", schedule_id).fields for schedule_id in ids(1_000)]

    assert texts == [read("H H * * *", schedule_id).fields for schedule_id in ids(1_000)]
    assert len({text.split()[1] for text in texts}) == 60
    assert len({text.split()[2] for text in texts}) == 24
    assert len(set(texts)) > 600


def test_hashed_ranges_and_steps_stay_within_them() -> None:
    for schedule_id in ids(200):
        recurrence = Recurrence(Rule(crons=("H(10-20) H/8 * * *",)), schedule_id)
        fired = all_of(recurrence, at("2026-01-01") - 1, at("2026-01-02") - 1)
        assert len(fired) == 3
        assert {b - a for a, b in pairwise(fired)} == {8 * HOUR}
        assert all(10 <= time_us // MINUTE % 60 <= 20 for time_us in fired)


def test_hashed_days_exist_in_every_month() -> None:
    for schedule_id in ids(100):
        fired = all_of(Recurrence(Rule(crons=("0 0 H * *",)), schedule_id), at("2026-01-01") - 1, at("2027-01-01") - 1)
        assert len(fired) == 12


def test_an_interval_counts_from_1970_and_has_a_phase() -> None:
    recurrence = Recurrence(Rule(interval_us=15 * MINUTE, phase_us=2 * MINUTE, time_zone="Europe/Berlin"), ID)

    assert locals_of(recurrence, "2026-03-29T00:30", 3) == [
        "2026-03-29T01:32:00+01:00",
        "2026-03-29T01:47:00+01:00",
        "2026-03-29T03:02:00+02:00",
    ]


def test_dates_fire_once_each_in_order_whatever_order_they_were_written_in() -> None:
    recurrence = Recurrence(Rule(dates_us=(30, 10, 20, 10)), ID)

    assert all_of(recurrence, -1, 100) == [10, 20, 30]
    assert recurrence.next_after(30) is None


def test_nothing_fires_before_the_start_nor_at_the_end() -> None:
    start, end = at("2026-01-05T09:00"), at("2026-01-07T09:00")
    recurrence = a_cron("0 9 * * *", start_us=start, end_us=end)

    assert all_of(recurrence, -1, end + 9 * DAY) == [start, start + DAY]
    assert recurrence.count(0, end + 9 * DAY) == 2


def test_times_that_several_sources_mean_are_one_firing() -> None:
    recurrence = Recurrence(
        Rule(crons=("0 * * * *", "0 */2 * * *", "@every 30m"), interval_us=HOUR, dates_us=(at("2026-01-01T01:00"),)), ID
    )

    fired = all_of(recurrence, at("2026-01-01") - 1, at("2026-01-01T02:00"))

    assert fired == [at("2026-01-01") + n * 30 * MINUTE for n in range(5)]
    assert recurrence.count(at("2026-01-01") - 1, at("2026-01-01T02:00")) == 5


def test_what_is_excluded_does_not_fire() -> None:
    recurrence = a_cron(
        "0 9 * * *",
        zone="Europe/Berlin",
        excluded_crons=("* * * * SAT,SUN",),
        excluded_dates=("2026-12-24/2026-12-26", "2027-01-01"),
    )

    assert [text[:10] for text in locals_of(recurrence, "2026-12-22T12:00", 7)] == [
        "2026-12-23",
        "2026-12-28",
        "2026-12-29",
        "2026-12-30",
        "2026-12-31",
        "2027-01-04",
        "2027-01-05",
    ]


def test_days_off_may_overlap() -> None:
    recurrence = a_cron("@daily", excluded_dates=("2026-01-01/2026-01-31", "2026-01-05", "2026-01-30/2026-02-02"))

    assert recurrence.next_after(at("2026-01-01")) == at("2026-02-03")


def test_five_fields_exclude_whole_minutes_and_six_exclude_seconds() -> None:
    minute = a_cron("*/20 * * * * *", excluded_crons=("1 * * * *",))
    second = a_cron("*/20 * * * * *", excluded_crons=("20 * * * * *",))
    begin = at("2026-01-01")

    assert [t - begin for t in all_of(minute, begin, begin + 2 * MINUTE)] == [20 * SECOND, 40 * SECOND, 120 * SECOND]
    assert [t - begin for t in all_of(second, begin, begin + MINUTE)] == [40 * SECOND, 60 * SECOND]


def test_a_year_of_excluded_days_is_passed_over() -> None:
    recurrence = a_cron("* * * * * *", excluded_crons=("* * * 1-11 *",), excluded_dates=("2026-01-01/2035-12-31",))

    assert recurrence.next_after(at("2026-06-01")) == at("2036-12-01")


def test_jitter_is_stable_and_spread_and_never_reaches_the_next_nominal_time() -> None:
    rule = Rule(crons=("*/5 * * * *",), jitter_us=HOUR)
    nominal = at("2026-01-01")
    dues = [Recurrence(rule, schedule_id).due_us(nominal) for schedule_id in ids(300)]

    assert dues == [Recurrence(rule, schedule_id).due_us(nominal) for schedule_id in ids(300)]
    assert nominal <= min(dues) < nominal + 30 * SECOND
    assert nominal + 270 * SECOND < max(dues) < nominal + 300 * SECOND
    assert len(set(dues)) == 300


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["* * * * * *", "*/7 * * * *", "30 1,2 * * *", "H H * * *", "@every 90s"]),
    st.integers(0, DAY),
    st.binary(min_size=16, max_size=16),
    st.integers(at("2026-10-20"), at("2026-10-30")),
)
def test_firings_stay_in_order_whatever_their_jitter(cron: str, jitter: int, schedule_id: bytes, after: int) -> None:
    recurrence = Recurrence(Rule(crons=(cron,), jitter_us=jitter, time_zone="Europe/Berlin"), schedule_id)

    previews = recurrence.preview(after, 5)

    assert all(0 <= it.due_us - it.nominal_us <= jitter for it in previews)
    assert all(a.due_us < b.nominal_us for a, b in pairwise(previews))
    assert [it.due_us for it in previews] == [recurrence.due_us(it.nominal_us) for it in previews]


def test_jitter_never_reaches_the_end() -> None:
    nominal = at("2026-01-01")
    rule = Rule(crons=("@daily",), jitter_us=HOUR, end_us=nominal + SECOND)

    assert all(nominal <= Recurrence(rule, each).due_us(nominal) < nominal + SECOND for each in ids(50))


def test_one_second_apart_is_as_dense_as_it_gets() -> None:
    begin = at("2026-03-29")

    fired = all_of(a_cron("* * * * * *", zone="Europe/Berlin"), begin, begin + 2 * HOUR)

    assert fired == [begin + n * SECOND for n in range(1, 7_201)]


def test_the_last_times_there_are_end_it_quietly() -> None:
    recurrence = a_cron("@yearly", zone="Pacific/Apia")

    assert recurrence.next_after(at("9990-01-01")) is not None
    assert recurrence.next_after(at("9998-12-30")) is None
    assert recurrence.next_after(1 << 62) is None


def test_a_rule_is_told_in_words() -> None:
    rule = Rule(
        crons=("30 2 * * *", "CRON_TZ=Asia/Tokyo 0 9 * * MON", "@every 90m"),
        interval_us=HOUR,
        phase_us=1_500_000,
        dates_us=(at("2026-05-01"),),
        time_zone="Europe/Berlin",
        excluded_crons=("* * * * SAT",),
        excluded_dates=("2026-12-25",),
        start_us=at("2026-01-01"),
        end_us=at("2027-01-01"),
        jitter_us=30 * SECOND,
        dst=DstPolicy.SKIP,
    )

    assert Recurrence(rule, ID).explain() == (
        "At 02:30 every day; At 09:00 on Monday (Asia/Tokyo); Every 1 h 30 min; Every 1 h plus 1.5 s; "
        "On 2026-05-01T02:00:00+02:00; in Europe/Berlin; not every minute on Saturday; not on 2026-12-25; "
        "from 2026-01-01T01:00:00+01:00; before 2027-01-01T01:00:00+01:00; up to 30 s later"
    )


def test_schedules_that_say_the_same_share_what_was_compiled() -> None:
    def grow(make: Callable[[int], Any], count: int = 2_000) -> float:
        make(0)
        tracemalloc.start()
        try:
            kept = [make(n) for n in range(1, count + 1)]
            return tracemalloc.get_traced_memory()[0] / len(kept)
        finally:
            tracemalloc.stop()

    def make(n: int) -> Recurrence:
        recurrence = Recurrence(Rule(crons=(f"{n % 60} {n % 24} * * *",), time_zone="Europe/Berlin"), n.to_bytes(16))
        recurrence.next_after(at("2026-01-01"))
        return recurrence

    assert grow(make) < 1_500
