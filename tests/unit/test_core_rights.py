"""What a right covers, and what a token is."""

from __future__ import annotations

import re

import pytest

from taskq_server.core import token as api_token
from taskq_server.core.rights import Rights, of_certificates


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("cook", ["cook"], ["cooks", "Cook", "coo", "a.cook", ""]),
        ("kitchen.*", ["kitchen.", "kitchen.cook", "kitchen.a.b"], ["kitchen", "kitchens.cook", "a.kitchen.b"]),
        ("*", ["cook", "a/b-c_d.e", "x" * 128], []),
    ],
)
def test_a_pattern_is_a_name_or_how_names_begin(pattern: str, covered: list[str], not_covered: list[str]) -> None:
    for kind in ("enqueue", "process"):
        rights = Rights.parse([f"{kind}:{pattern}"])
        names, other = (rights.enqueue, rights.process) if kind == "enqueue" else (rights.process, rights.enqueue)
        assert all(name in names for name in covered)
        assert not any(name in names for name in not_covered)
        assert not other and not any(name in other for name in covered)


def test_several_patterns_cover_what_each_of_them_does() -> None:
    rights = Rights.parse(["enqueue:cook", "enqueue:kitchen.*", "enqueue:hall.*"])
    assert [name in rights.enqueue for name in ("cook", "kitchen.x", "hall.x", "roof")] == [True, True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        "", "enqueue", "enqueue:", "process:", "enqueue:*cook", "enqueue:a*b", "enqueue:a**", "enqueue:a b",
        "read:cook", "READ", "payload", "payload:", "admin:*", "write", "enqueue:ä", "enqueue:" + "x" * 129, "read ",
        "enqueue:a\n",
    ],
)  # fmt: skip
def test_what_is_no_right_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be enqueue:NAMES"):
        Rights.parse(["read", text])


def test_no_rights_at_all_are_none() -> None:
    with pytest.raises(ValueError, match="there is none"):
        Rights.parse([])


def test_the_rights_of_certificates_are_read_by_line_or_semicolon() -> None:
    found = of_certificates(
        "# who is who\nspiffe://a/b?c=d = enqueue:kitchen.* , read\n\n api.example=process:* ; cook@x=admin"
    )
    assert {name: rights.texts for name, rights in found.items()} == {
        "spiffe://a/b?c=d": ("enqueue:kitchen.*", "read"),
        "api.example": ("process:*",),
        "cook@x": ("admin",),
    }
    assert of_certificates("") == {}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("api.example", "must be NAME=RIGHT,RIGHT"),
        ("=read", "must be 1 to 256"),
        ("two words=read", "must be 1 to 256"),
        ("api.example=", "must be enqueue:NAMES"),
        ("api.example=read,,admin", "must be enqueue:NAMES"),
        ("api.example=root", "must be enqueue:NAMES"),
        ("a=read;a=admin", "'a' is repeated"),
    ],
)
def test_a_fault_in_the_rights_of_certificates_is_named(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        of_certificates(text)


def test_a_token_is_known_by_its_form_and_has_256_random_bits() -> None:
    made = {api_token.new() for _ in range(1000)}
    assert len(made) == len({text[16:59] for text in made}) == 1000
    for text in made:
        assert re.fullmatch(r"tq_[0-9a-f]{12}_[A-Za-z0-9_-]{43}_[0-9A-Za-z]{6}", text)
        token_id = api_token.id_of(text)
        assert token_id is not None and text.startswith(f"{token_id}_") and api_token.ID.fullmatch(token_id)
        assert len(api_token.hash_of(text)) == 32


def test_a_token_with_any_character_changed_left_out_or_added_is_none() -> None:
    text = api_token.new()
    for i, character in enumerate(text):
        other = "a" if character != "a" else "b"
        assert api_token.id_of(text[:i] + other + text[i + 1 :]) is None
        assert api_token.id_of(text[:i] + text[i + 1 :]) is None
        assert api_token.id_of(text[:i] + "a" + text[i:]) is None
    assert api_token.id_of(text + "\n") is None
    assert api_token.id_of("") is None
