"""Requirements and routes: what a task asks of its processor's labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_server.core.matching import Requirement, Route, route_of

WORDS = st.text("abcXYZ019._/-", min_size=1, max_size=6)
SPACES = st.text(" \t", max_size=3)
REQUIREMENTS = st.one_of(
    st.builds(Requirement, WORDS, st.none()),
    st.builds(Requirement, WORDS, st.just(())),
    st.builds(
        lambda key, values: Requirement(key, tuple(sorted(values))), WORDS, st.sets(WORDS, min_size=1, max_size=4)
    ),
)
LABELS = st.dictionaries(WORDS, WORDS, max_size=4)


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("zone = eu", Requirement("zone", ("eu",))),
        ("zone=eu", Requirement("zone", ("eu",))),
        ("  zone\t= eu  ", Requirement("zone", ("eu",))),
        ("zone in (us, eu)", Requirement("zone", ("eu", "us"))),
        ("zone in(us,eu,us)", Requirement("zone", ("eu", "us"))),
        ("zone in (eu)", Requirement("zone", ("eu",))),
        ("gpu exists", Requirement("gpu", None)),
        ("exists exists", Requirement("exists", None)),
        ("!gpu", Requirement("gpu", ())),
        ("! gpu", Requirement("gpu", ())),
        ("in in (in)", Requirement("in", ("in",))),
    ],
)
def test_what_a_requirement_may_look_like(text: str, requirement: Requirement) -> None:
    assert Requirement.parse(text) == requirement


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "zone",
            "zone =",
            "= eu",
            "zone == eu",
            "zone = eu us",
            "zone in ()",
            "zone in (,)",
            "zone in (eu,)",
        ),
        *("zone in eu", "zone in (eu", "!", "!!gpu", "!gpu exists", "gpuexists", "zone != eu", "zöne = eu", "a=\x00"),
        *("zone = eu; x", 'zone = "eu"', "zone = eu\nx = y", "zonein (eu)"),
    ],
)
def test_anything_else_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(ValueError, match="must be `key = value`"):
        Requirement.parse(text)


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        requirement = Requirement.parse(text)
    except ValueError:
        return
    assert Requirement.parse(str(requirement)) == requirement


@given(REQUIREMENTS, SPACES, SPACES)
def test_a_requirement_is_what_its_text_says(requirement: Requirement, before: str, behind: str) -> None:
    assert Requirement.parse(before + str(requirement) + behind) == requirement


@given(REQUIREMENTS, LABELS)
def test_a_requirement_is_met_by_one_of_its_values_any_value_or_none(
    requirement: Requirement, labels: dict[str, str]
) -> None:
    has = requirement.key in labels
    if requirement.values is None:
        assert requirement.met_by(labels) is has
    elif not requirement.values:
        assert requirement.met_by(labels) is not has
    else:
        assert requirement.met_by(labels) is (has and labels[requirement.key] in requirement.values)


@given(st.lists(REQUIREMENTS, max_size=5), st.randoms(use_true_random=False))
def test_a_route_does_not_depend_on_the_order_or_repetition_of_its_requirements(requirements, random) -> None:  # type: ignore[no-untyped-def]
    texts = [str(requirement) for requirement in requirements]
    again = texts + texts[:2]
    random.shuffle(again)

    assert route_of("cook", texts) == route_of("cook", again)
    assert set(route_of("cook", texts).requires) == set(requirements)


def test_a_route_is_open_to_who_has_the_capability_and_meets_every_requirement() -> None:
    route = route_of("cook", ["zone = eu", "!slow"])

    assert route.open_to({"cook": 0}, {"zone": "eu"})
    assert not route.open_to({"bake": 0}, {"zone": "eu"})
    assert not route.open_to({"cook": 0}, {"zone": "us"})
    assert not route.open_to({"cook": 0}, {"zone": "eu", "slow": ""})
    assert Route("cook").open_to({"cook": 0, "bake": 1}, {})
