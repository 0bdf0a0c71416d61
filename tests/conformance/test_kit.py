"""The conformance kit finds what is wrong with a processor, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import sys

import pytest
from click.testing import CliRunner, Result

from admin_client.command import main
from admin_client.conformance.promises import ALL
from tests.conformance.faults import FAULTS, WRONG, broken
from tests.support.process import ROOT

OURS = f"{sys.executable} -m examples.clients.python.processor"
CLIENTS = (ROOT / "docs" / "clients.md").read_text()
FAULTS_AT_A_TIME = 10
PATIENCE_SECONDS = 30
"""Machines on which tests run may be busy."""


@pytest.fixture(autouse=True)
def silent_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes fail here on purpose."""
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")


def conformance(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["conformance", *arguments])


def test_our_processor_keeps_every_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    result = conformance("--command", OURS, "--jobs", "20", "--patience", str(PATIENCE_SECONDS))

    assert result.exit_code == 0, result.output
    assert f"{len(ALL)} of {len(ALL)} promises hold" in result.output


async def test_a_small_processor_on_the_bare_stubs_keeps_every_promise_and_with_a_fault_breaks_it() -> None:
    promises = [promise.name for promise in ALL]
    places = asyncio.Semaphore(FAULTS_AT_A_TIME)

    async def found(promise: str) -> set[str]:
        fault = telling(promise)
        sound = next(name for name in [*promises[promises.index(promise) :], *promises] if name not in FAULTS[fault])
        async with places:
            wrong = broken(fault, {promise}, jobs=1, patience=5)
            right = broken(fault, {sound}, jobs=1, patience=PATIENCE_SECONDS)
            return set().union(*await asyncio.gather(wrong, right))

    keeping = broken("", jobs=8, patience=PATIENCE_SECONDS)
    without, *seen = await asyncio.gather(keeping, *(found(promise) for promise in promises))

    assert without == set()
    assert dict(zip(promises, seen, strict=True)) == {promise: {promise} for promise in promises}


def telling(promise: str) -> str:
    """The fault that breaks this promise, and the fewest others."""
    return min((fault for fault in FAULTS if promise in FAULTS[fault]), key=lambda fault: len(FAULTS[fault]))


def test_there_is_a_fault_for_every_promise() -> None:
    assert set().union(*FAULTS.values()) == {promise.name for promise in ALL}


def test_a_broken_promise_is_named_with_its_reason_and_the_exit_code_is_1() -> None:
    command = " ".join([*WRONG, "--fault=has-no-name"])

    result = conformance("--command", command, "--only", "registration", "--only", "echo", "--json")

    assert result.exit_code == 1
    said = json.loads(result.output)
    assert said["holds"] is False
    assert {each["name"]: each["holds"] for each in said["promises"]} == {"registration": False, "echo": True}
    reason = next(each["reason"] for each in said["promises"] if each["name"] == "registration")
    assert reason == "processor_name is ''; must be 1 to 128 of A-Z a-z 0-9 . _ / -"


def test_a_processor_that_ends_is_quoted() -> None:
    program = "import sys; sys.exit('no such oven')"

    result = conformance("--command", f'{sys.executable} -c "{program}"', "--only", "echo")

    assert result.exit_code == 1
    assert "it ended with exit code 1; must open its stream (no such oven)" in result.output


def test_a_processor_that_ends_when_nothing_more_is_asked_of_it_has_broken_its_promise() -> None:
    command = " ".join([*WRONG, "--fault=dies-after-a-lost-answer"])

    result = conformance("--command", command, "--only", "answer-lost", "--patience", str(PATIENCE_SECONDS))

    assert result.exit_code == 1
    assert "it ended with exit code 3; must go on" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "--command is missing"),
        (("--command", "./there-is-none"), "./there-is-none cannot be run"),
        (("--command", "x", "--only", "politeness"), "no such promise: politeness"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(arguments: tuple[str, ...], complaint: str) -> None:
    result = conformance(*arguments)

    assert result.exit_code == 2
    assert complaint in result.output


def test_the_page_lists_the_promises_as_the_kit_does() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \| (.*?) \|$", CLIENTS.partition("<!-- promises -->")[2], re.MULTILINE)

    assert listed == [(promise.name, promise.sentence) for promise in ALL]
    lines = conformance("--list").output.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [[promise.name, promise.sentence] for promise in ALL]
