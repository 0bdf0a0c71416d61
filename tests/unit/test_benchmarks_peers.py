"""What can be wrong in a comparison and nobody notices: percentiles, ratios, whose turn it is, what is counted."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from benchmarks import machine, report
from benchmarks.peers import __main__ as peers
from benchmarks.peers import tables
from benchmarks.peers.field import ALL, CELERY, POSTGRES, SQLITE, System
from benchmarks.peers.players import play
from benchmarks.peers.redis import Redis
from benchmarks.report import Figures
from tests.support.process import ROOT

PEERS = ROOT / "benchmarks" / "peers"


def rates(*values: float) -> list[Figures]:
    """One run a round."""
    return [{"enqueue /s": value} for value in values]


def a_result(**runs: list[Figures]) -> dict[str, Any]:
    return {
        "machine": {"cores": 2},
        "versions": {"python": "3.11"},
        "rounds": 3,
        "tasks": 5_000,
        "systems": {system.name: peers.described(system) for system in ALL},
        "runs": runs,
    }


class TestPercentiles:
    @pytest.mark.parametrize(("per_mille", "expected"), [(500, 500), (990, 990), (999, 999), (1000, 1000)])
    def test_so_many_thousandths_of_a_thousand_are_as_many_of_them(self, per_mille: int, expected: int) -> None:
        seconds = [value / 1000 for value in range(1000, 0, -1)]
        assert report.percentile_ms(seconds, per_mille) == expected

    def test_of_few_the_last_thousandth_is_the_largest(self) -> None:
        assert report.percentile_ms([0.003, 0.001, 0.002], 999) == 3

    def test_of_one_all_are_that_one(self) -> None:
        assert {report.percentile_ms([0.007], share) for share in (1, 500, 999)} == {7}


class TestRatios:
    def test_are_taken_within_each_round_before_the_median_is(self) -> None:
        # given a machine that was ten times as slow in the second round
        ours, theirs = rates(100, 10, 400), rates(50, 5, 100)
        # then the ratios are 2, 2 and 4; that of the medians would be 2 as well, but for the last round's theirs
        assert tables.ratio(ours, theirs, "enqueue /s") == {"median": 2, "min": 2, "max": 4}
        assert tables.ratio(rates(100, 10, 40), rates(50, 10, 10), "enqueue /s")["median"] == 2  # of medians: 4

    def test_are_none_where_there_is_nothing_to_divide_by(self) -> None:
        assert tables.ratio(rates(1, 1), rates(1, 0), "enqueue /s") == {}

    def test_need_as_many_rounds_of_both(self) -> None:
        with pytest.raises(ValueError, match="longer"):
            tables.ratio(rates(1), rates(1, 2), "enqueue /s")

    def test_the_best_of_the_others_is_another_in_each_round_and_never_ours(self) -> None:
        runs = {"sqlite": rates(900, 900), "postgres": rates(800, 800), "celery": rates(5, 1), "huey": rates(2, 7)}
        assert tables.best(runs, "enqueue /s") == rates(5, 7)


class TestTables:
    def test_a_row_has_the_median_with_least_and_most_and_both_ratios(self) -> None:
        runs = {"sqlite": rates(100, 10, 40), "postgres": rates(50, 10, 20), "celery": rates(50, 10, 10)}
        row = next(line for line in tables.one_by_one(a_result(**runs)).splitlines() if line.startswith("| Celery"))
        assert row == "| Celery, Redis | 10.00 (10.00 to 50.00) | 2.00 | 1.00 |"

    def test_has_no_ratios_where_ours_did_not_take_part(self) -> None:
        shown = tables.one_by_one(a_result(celery=rates(50, 10, 10)))
        assert "÷" not in shown
        assert tables.BEST in shown

    def test_has_no_best_of_the_others_where_no_other_took_part(self) -> None:
        assert tables.BEST not in tables.one_by_one(a_result(sqlite=rates(1, 1, 1)))


class TestTurns:
    def test_everybody_has_one_in_each_round_and_each_round_begins_with_the_next(self) -> None:
        order: list[str] = []

        def run(system: System) -> Figures:
            order.append(system.name)
            return {"place": len(order)}

        runs = peers.in_turns("part", peers.Part(ALL, run, {}), (SQLITE, POSTGRES, CELERY), rounds=4)

        assert order[:6] == ["sqlite", "postgres", "celery", "postgres", "celery", "sqlite"]
        assert [run["place"] for run in runs["sqlite"]] == [1, 6, 8, 10]
        assert {len(figures) for figures in runs.values()} == {4}


class TestTheJournal:
    def test_keeps_each_timed_task_and_the_first_no_op_of_a_process(self, tmp_path: Path) -> None:
        journal, before = play.Journal(str(tmp_path / "journal")), time.time()
        journal.begun()
        journal.begun()
        journal.note(17.5)
        kept = play.notes(tmp_path / "journal")
        assert [instant for instant, _ in kept] == [play.FIRST, 17.5]
        assert all(before <= started <= time.time() for _, started in kept)

    def test_half_a_record_is_none_yet(self, tmp_path: Path) -> None:
        play.Journal(str(tmp_path / "journal")).note(1.0)
        with (tmp_path / "journal").open("ab") as file:
            file.write(b"\0" * (play.NOTE.size - 1))
        assert len(play.notes(tmp_path / "journal")) == 1


class TestInstants:
    def test_are_the_same_for_a_seed_and_others_for_another(self) -> None:
        assert play.instants(100, 60.0, seed=1) == play.instants(100, 60.0, seed=1)
        assert play.instants(100, 60.0, seed=1) != play.instants(100, 60.0, seed=2)

    def test_are_in_order_and_within_the_span(self) -> None:
        instants = play.instants(1_000, 2.0, seed=1)
        assert instants == sorted(instants)
        assert 0 <= instants[0] < 0.1
        assert 1.9 < instants[-1] <= 2


def test_chunks_lose_nothing_and_are_no_larger_than_asked() -> None:
    assert list(play.chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(play.chunks([], 2)) == []


class TestRedis:
    @contextmanager
    def answering(self, answer: bytes) -> Iterator[tuple[Redis, list[bytes]]]:
        """Something that answers one connection so, and what it was asked."""
        heard: list[bytes] = []
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(4096))
                    connection.sendall(answer)

            server = Thread(target=serve)
            server.start()
            yield Redis(listener.getsockname()[1], pid=0, folder=Path()), heard
            server.join()

    def test_is_asked_in_the_database_where_results_stand(self) -> None:
        with self.answering(b"+OK\r\n:20000\r\n") as (redis, heard):
            assert redis.count("HLEN", "results", of=1) == 20_000
        assert b"".join(heard) == b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n*2\r\n$4\r\nHLEN\r\n$7\r\nresults\r\n"

    @pytest.mark.parametrize("answer", [b"+OK\r\n-ERR no such command\r\n", b"-ERR index\r\n:3\r\n", b"+OK\r\n"])
    def test_an_answer_that_is_no_number_is_never_taken_for_a_count(self, answer: bytes) -> None:
        with self.answering(answer) as (redis, _), pytest.raises(ValueError, match="must be a number"):
            redis.count("DBSIZE")


def test_the_costs_of_a_family_are_those_of_children_s_children_too() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])"
    process = subprocess.Popen(["python3", "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(machine.family(process.pid)) == 3
        assert machine.cpu_seconds_of_family(process.pid) >= 0.2
    finally:
        process.communicate(b"\n")
    assert machine.cpu_seconds_of_family(process.pid) == 0


class TestTheField:
    @pytest.mark.parametrize("system", ALL, ids=lambda system: system.name)
    def test_has_a_player_and_a_pinned_version_of_what_it_measures(self, system: System) -> None:
        pinned = (PEERS / "requirements.txt").read_text()
        assert (PEERS / "players" / f"{system.player}.py").is_file()
        if not system.is_ours:
            assert all(f"{package}==" in pinned or f"{package}[" in pinned for package in system.packages)

    def test_names_are_of_one_each(self) -> None:
        names = [system.name for system in (*ALL, *peers.BESIDE)]
        assert sorted(set(names)) == sorted(names)

    def test_is_on_the_page_as_it_is(self) -> None:
        page = (ROOT / "docs" / "performance.md").read_text()
        marked = page.partition("<!-- peers-settings:")[2].partition("\n<!-- /peers-settings -->")[0]
        assert marked.partition("-->\n")[2] == tables.settings()

    @pytest.mark.parametrize("part", tables.SHOWN)
    def test_every_part_has_a_place_on_the_page(self, part: str) -> None:
        shown, page = tables.SHOWN[part], (ROOT / "docs" / "performance.md").read_text()
        assert page.count(shown.begin) == page.count(shown.end) == 1

    def test_is_prompt_with_the_same_workers_unless_others_are_named(self) -> None:
        assert SQLITE.prompt == SQLITE
        assert CELERY.prompt.workers == CELERY.prompt_workers != CELERY.workers
