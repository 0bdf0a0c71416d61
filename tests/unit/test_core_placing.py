"""Who gets which task: most urgent first, nobody more than he can take, nothing left that could have been placed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from taskq_server.core.matching import Candidate, Demand, Seats

ROUTES = {1: "cook", 2: "cook", 3: "bake", 4: "fry"}


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    seats = []
    for number in range(draw(st.integers(0, 5))):
        routes = {route: ROUTES[route] for route in draw(st.sets(st.sampled_from(sorted(ROUTES))))}
        total = draw(st.integers(0, 6))
        by_name = {name: draw(st.integers(0, 6)) for name in sorted(set(routes.values()))}
        room = draw(st.sampled_from([0, 10, 1_000]))
        held = draw(st.integers(0, 3))
        seats.append(Seats(number + 1, f"p{number}", total, by_name, routes, held, room_bytes=room))
    return Demand(seats)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    size = st.sampled_from([0, 4, 20])
    facts = st.tuples(st.sampled_from(sorted(ROUTES)), st.integers(0, 9), st.integers(0, 5), size)
    return [Candidate(seq, *fact) for seq, fact in enumerate(draw(st.lists(facts, max_size=30)), 1)]


def urgency(candidate: Candidate) -> tuple[int, int, int]:
    return -candidate.priority, candidate.due_time_us, candidate.seq


def frozen(demand: Demand) -> dict[int, tuple[int, dict[str, int], dict[int, str]]]:
    return {seats.session_seq: (seats.total, dict(seats.by_name), dict(seats.routes)) for seats in demand.seats}


@given(demands(), candidates(), st.integers(0, 30))
def test_nobody_gets_more_than_he_can_take_nor_what_he_may_not_run(
    demand: Demand, due: list[Candidate], at_most: int
) -> None:
    before = frozen(demand)

    placed = demand.place(due, at_most)

    assert len(placed) <= at_most
    assert len({candidate.seq for candidate, _ in placed}) == len(placed)
    for seq, (total, by_name, routes) in before.items():
        mine = [candidate for candidate, seats in placed if seats.session_seq == seq]
        assert all(candidate.route_id in routes for candidate in mine)
        assert len(mine) <= total
        assert all(count <= by_name[name] for name, count in Counter(ROUTES[one.route_id] for one in mine).items())


@given(demands(), candidates(), st.integers(0, 30))
def test_the_most_urgent_come_first(demand: Demand, due: list[Candidate], at_most: int) -> None:
    order = [urgency(candidate) for candidate, _ in demand.place(due, at_most)]

    assert order == sorted(order)


@given(demands(), candidates())
def test_nothing_waits_that_a_free_seat_could_take(demand: Demand, due: list[Candidate]) -> None:
    placed = {candidate.seq for candidate, _ in demand.place(due, 1_000)}

    for candidate in due:
        if candidate.seq not in placed:
            assert not any(seats.free_for(candidate.route_id) > 0 for seats in demand.seats)


@given(demands(), candidates())
def test_a_task_is_only_passed_over_for_one_that_takes_its_seat(demand: Demand, due: list[Candidate]) -> None:
    """Of one route, what is placed is more urgent than all that is not."""
    placed = {candidate.seq for candidate, _ in demand.place(due, 1_000)}

    for route in ROUTES:
        mine = sorted((one for one in due if one.route_id == route), key=urgency)
        taken = [one.seq in placed for one in mine]
        assert taken == sorted(taken, reverse=True)


@given(demands(), candidates())
def test_the_credits_that_are_left_are_those_that_were_less_those_that_were_used(
    demand: Demand, due: list[Candidate]
) -> None:
    before = frozen(demand)

    placed = demand.place(due, 1_000)

    for seats in demand.seats:
        mine = [candidate for candidate, one in placed if one is seats]
        assert seats.total == before[seats.session_seq][0] - len(mine)
        for name, left in seats.by_name.items():
            used = sum(ROUTES[one.route_id] == name for one in mine)
            assert left == before[seats.session_seq][1][name] - used


@given(demands())
def test_the_limit_of_a_route_is_what_all_could_take_of_it_were_there_nothing_else(demand: Demand) -> None:
    limits = demand.limits()

    for route, name in ROUTES.items():
        expected = sum(
            min(one.total, one.by_name[name]) for one in demand.seats if route in one.routes and one.room_bytes > 0
        )
        assert limits.get(route, 0) == expected
    assert all(limit > 0 for limit in limits.values())


@given(demands(), candidates(), st.integers(0, 30))
def test_no_more_of_a_route_is_needed_than_its_limit(demand: Demand, due: list[Candidate], at_most: int) -> None:
    """So that reading no more than that from the table gives the same answer as reading all of it."""
    limits = demand.limits()
    few: list[Candidate] = []
    for route, limit in limits.items():
        few += sorted((one for one in due if one.route_id == route), key=urgency)[:limit]
    again = Demand([replace(one, by_name=dict(one.by_name)) for one in demand.seats])

    all_read = [(candidate, seats.session_seq) for candidate, seats in demand.place(due, at_most)]
    few_read = [(candidate, seats.session_seq) for candidate, seats in again.place(few, at_most)]

    assert all_read == few_read


@given(st.integers(1, 6), st.integers(0, 40))
def test_equal_sessions_get_equal_shares(sessions: int, tasks: int) -> None:
    demand = Demand([Seats(number, "p", 100, {"cook": 100}, {1: "cook"}) for number in range(1, sessions + 1)])

    placed = demand.place([Candidate(seq, 1, 0, 0) for seq in range(tasks)], 1_000)

    shares = Counter(seats.session_seq for _, seats in placed)
    assert max(shares.values(), default=0) - min((shares[number] for number in range(1, sessions + 1)), default=0) <= 1
