"""What schedules do when the clocks change, in every zone."""

from __future__ import annotations

import re
import struct
from functools import cache
from importlib.resources import files
from itertools import pairwise

import pytest

from taskq_server.core.schedule import Dst, DstPolicy, Rule, faults, tzdata_version
from taskq_server.core.schedule.zone import Zone, zone_named
from tests.support.process import ROOT
from tests.unit.schedules import SECOND, a_cron, all_of, at

DAY_S = 86_400
NAMES = files("tzdata").joinpath("zones").read_text().split()
ROW = re.compile(r"^\| `([^`]+)` \| (\S+) \| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
TABLE = [
    match.groups() for line in (ROOT / "docs" / "schedules.md").read_text().splitlines() if (match := ROW.match(line))
]
CASES = [
    (zone, day, cron, policy, cell)
    for zone, day, cron, *cells in TABLE
    for policy, cell in zip(DstPolicy, cells, strict=True)
]


@pytest.mark.parametrize(("zone", "day", "cron", "policy", "cell"), CASES)
def test_a_row_of_the_documented_table_is_so(zone: str, day: str, cron: str, policy: DstPolicy, cell: str) -> None:
    noon = at(f"{day}T12:00")
    recurrence = a_cron(cron, zone=zone, dst=policy)

    found = [
        zone_named(zone).local(time_us)
        for time_us in all_of(recurrence, noon - 2 * DAY_S * SECOND, noon + 2 * DAY_S * SECOND)
    ]

    assert [text[11:16] + text[19:] for text in found if text.startswith(day)] == re.findall(r"[\d:]+[+-][\d:]+", cell)


def test_the_documented_table_has_zones_of_every_kind() -> None:
    assert len({row[0] for row in TABLE}) >= 14


@cache
def changes_in(name: str) -> tuple[tuple[int, int], ...]:
    """When the offset changes, since 1970 until its file (RFC 9636) ends, and by how much."""
    data = files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    counts = struct.unpack(">6l", data[20:44])
    second = 44 + counts[3] * 5 + counts[4] * 6 + counts[5] + counts[2] * 8 + counts[1] + counts[0]
    isut, isstd, leap, times, types, _ = struct.unpack(">6l", data[second + 20 : second + 44])
    del isut, isstd, leap
    body = data[second + 44 :]
    moments = struct.unpack(f">{times}q", body[: times * 8])
    kinds = body[times * 8 : times * 9]
    offsets = [struct.unpack(">l", body[times * 9 + i * 6 :][:4])[0] for i in range(types)]
    after = [offsets[kind] for kind in kinds]
    steps = [(moment, new - old) for moment, old, new in zip(moments, [offsets[0], *after], after, strict=False)]
    return tuple((moment, step) for moment, step in steps if step and moment >= 0)


@cache
def unlike_zones() -> tuple[str, ...]:
    """One name for each set of rules."""
    found = {files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes(): name for name in NAMES}
    return tuple(found.values())


def found_changes(zone: Zone, from_s: int, until_s: int) -> list[tuple[int, int]]:
    stretches = list(zone.stretches(from_s, until_s))
    return [(b.start_s, b.offset_s - a.offset_s) for a, b in pairwise(stretches) if a.offset_s != b.offset_s]


def test_no_zone_changes_twice_within_a_day_nor_by_more_than_a_day() -> None:
    # what zone.py looks for changes by
    for name in unlike_zones():
        changes = changes_in(name)
        assert all(b[0] - a[0] > DAY_S for a, b in pairwise(changes)), name
        assert all(abs(step) <= DAY_S for _, step in changes), name


def test_the_changes_of_a_zone_are_those_of_its_file() -> None:
    for name in ["America/St_Johns", "Africa/Casablanca", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Monrovia"]:
        changes = changes_in(name)
        assert len(changes) > 0
        found = found_changes(zone_named(name), 0, changes[-1][0] + 1)
        assert [change for change in found if change[0] <= changes[-1][0]] == list(changes)


def test_the_rules_go_on_when_the_file_ends() -> None:
    year = at("2090-01-01") // SECOND
    changes = found_changes(zone_named("Europe/Berlin"), year, year + 365 * DAY_S)

    assert [step for _, step in changes] == [3600, -3600]


def test_a_daily_job_runs_once_a_day_at_every_change_that_a_zone_has_known() -> None:
    # from one firing to the next it is a day, give or take what the clocks change by
    checked = 0
    for name in unlike_zones():
        zone = zone_named(name)
        to_come = found_changes(zone, at("2026-01-01") // SECOND, at("2027-12-31") // SECOND)
        for moment, step in {*changes_in(name), *to_come}:
            if abs(step) == DAY_S:
                step = 0  # a day that does not exist: the wall's days are as long as ever
            wall = (
                moment + zone.offset_s(moment) - max(step, 0) + abs(step) // 2
            )  # in the midst of what is lost or repeated
            recurrence = a_cron(f"{wall // 60 % 60} {wall // 3600 % 24} * * *", zone=name)
            fired = all_of(recurrence, (moment - 2 * DAY_S) * SECOND, (moment + 2 * DAY_S) * SECOND)
            assert 3 <= len(fired) <= 5
            for a, b in pairwise(fired):
                assert abs(b - a - DAY_S * SECOND) <= abs(step) * SECOND, (name, moment)
            checked += 1
    assert checked > 5_000


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 0 * * *", "30 23 * * *"])
@pytest.mark.parametrize(
    "zone",
    ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Antarctica/Troll", "Asia/Gaza"],
)
def test_a_daily_job_runs_as_often_as_there_are_days(zone: str, cron: str) -> None:
    noon = at("2020-01-01T12:00")

    fired = all_of(a_cron(cron, zone=zone), noon, noon + 3653 * DAY_S * SECOND)

    assert len(fired) == 3653


@pytest.mark.parametrize("policy", DstPolicy)
def test_a_pace_is_kept_to_the_minute_whatever_the_policy(policy: DstPolicy) -> None:
    for day in ("2026-03-08", "2026-11-01"):
        fired = all_of(a_cron("*/15 * * * *", zone="America/New_York", dst=policy), at(day), at(day) + DAY_S * SECOND)
        assert {b - a for a, b in pairwise(fired)} == {15 * 60 * SECOND}


def test_a_preview_marks_what_was_moved_and_what_occurs_twice() -> None:
    spring = a_cron("30 2 * * *", zone="Europe/Berlin").preview(at("2026-03-28T12:00"), 2)
    autumn = a_cron("30 2 * * *", zone="Europe/Berlin").preview(at("2026-10-24T12:00"), 2)

    assert [(it.local, it.dst) for it in spring] == [
        ("2026-03-29T03:00:00+02:00", Dst.GAP),
        ("2026-03-30T02:30:00+02:00", Dst.NORMAL),
    ]
    assert [(it.local, it.dst) for it in autumn] == [
        ("2026-10-25T02:30:00+02:00", Dst.REPEAT),
        ("2026-10-26T02:30:00+01:00", Dst.NORMAL),
    ]


def test_both_passes_of_a_repeated_hour_are_marked_and_the_hour_after_is_not() -> None:
    previews = a_cron("0 * * * *", zone="Europe/Berlin").preview(at("2026-10-24T23:00"), 4)

    assert [(it.local[11:16], it.dst) for it in previews] == [
        ("02:00", Dst.REPEAT),
        ("02:00", Dst.REPEAT),
        ("03:00", Dst.NORMAL),
        ("04:00", Dst.NORMAL),
    ]


def test_a_firing_that_one_cron_means_and_another_was_moved_to_is_one_and_marked() -> None:
    for crons in (("30 2 * * *", "0 3 * * *"), ("0 3 * * *", "30 2 * * *")):
        first, second = a_cron(*crons, zone="Europe/Berlin").preview(at("2026-03-28T12:00"), 2)
        assert (first.local, first.dst) == ("2026-03-29T03:00:00+02:00", Dst.GAP)
        assert second.local == "2026-03-30T02:30:00+02:00"


def test_shifted_times_that_fall_on_others_are_one_firing_and_are_counted_once() -> None:
    recurrence = a_cron("30 2,3 * * *", zone="Europe/Berlin", dst=DstPolicy.SHIFT)
    begin, end = at("2026-03-29T00:00"), at("2026-03-29T12:00")

    assert all_of(recurrence, begin, end) == [at("2026-03-29T03:30+02:00")]
    assert recurrence.count(begin, end) == 1


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Niue", "Pacific/Chatham"])
def test_a_day_is_found_however_many_days_off_it_is(zone: str) -> None:
    for day in range(1, 29):
        for hour in (0, 23):
            previews = a_cron(f"59 {hour} {day} * *", zone=zone).preview(
                at(f"2026-01-01T{hour:02}:00") - 2 * DAY_S * SECOND, 3
            )
            assert [it.local[:13] for it in previews] == [f"2026-{month:02}-{day:02}T{hour:02}" for month in (1, 2, 3)]


def test_the_rules_come_from_the_package_and_not_from_the_machine() -> None:
    assert re.fullmatch(r"20\d\d[a-z]", tzdata_version())
    assert files("tzdata").joinpath("zoneinfo", "tzdata.zi").read_text().startswith(f"# version {tzdata_version()}")


@pytest.mark.parametrize(
    "name", ["", "europe/berlin", "../../etc/passwd", "/etc/localtime", "Mars/Base", "UTC\0", "x" * 10_000]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    (fault,) = faults(Rule(crons=("@daily",), time_zone=name))

    assert fault.field == "time_zone"
    assert len(fault.rule) < 200
