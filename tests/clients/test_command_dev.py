"""What runs until it is stopped: `taskq dev`, `processor run`, `scheduler run`; real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.command_support import Taskq, command_line, own_environment
from tests.support.process import ServerProcess
from tests.support.waiting import until

LIMIT_SECONDS = 60
APP = """
from processor_client import Processor
processor = Processor()

@processor.task("greet")
def greet() -> str:
    print("greets", flush=True)
    return "%s"
"""


class Running:
    """A command that runs in a folder until it is stopped."""

    def __init__(self, folder: Path, *words: str, **more: str) -> None:
        self._log = folder / f"{words[0]} said"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command_line(*words), cwd=folder, env=own_environment(**more), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text()

    def says(self, text: str, times: int = 1) -> None:
        """Waits for it."""

        def heard() -> bool:
            assert self.process.poll() is None, self.said
            return self.said.count(text) >= times

        until(heard, f"{text!r} is said", LIMIT_SECONDS)

    @property
    def address(self) -> str:
        self.says("Ctrl-C ends it")
        found = re.search(r"gRPC +(\S+)", self.said)
        assert found is not None
        return found[1]

    def children(self) -> list[int]:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_SECONDS)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Running] = []

    def start(*words: str, **more: str) -> Running:
        running.append(Running(tmp_path, *words, **more))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def dev(start: Start, *words: str) -> Running:
    return start("dev", *words, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


async def test_all_runs_after_one_command_and_ends_after_one_ctrl_c(start: Start, tmp_path: Path) -> None:
    # given
    running = dev(start)
    taskq = Taskq(running.address)

    # when
    task = (await taskq.done("task", "enqueue", "demo.hello", "-d", '{"name": "you"}', "--wait"))["task"]

    # then
    assert task["state"] == "TASK_STATE_SUCCEEDED"
    assert "taskq task enqueue demo.hello" in running.said and f"--address {running.address}" in running.said
    assert (tmp_path / ".taskq" / "dev.db").exists()
    children = running.children()
    assert len(children) == 2
    assert running.stop() == 0
    assert not any(is_alive(pid) for pid in children)


async def test_a_task_of_yours_runs_and_after_a_change_runs_as_changed(start: Start, tmp_path: Path) -> None:
    # given
    (tmp_path / "app.py").write_text(APP % "one")
    running = dev(start, "app", "--reload")
    taskq = Taskq(running.address)
    assert 'result:    "one"' in await taskq.table("task", "enqueue", "greet", "--wait")

    # when
    (tmp_path / "app.py").write_text(APP % "two")
    running.says("app.py has changed")
    running.says("runs greet in session", times=2)

    # then
    assert 'result:    "two"' in await taskq.table("task", "enqueue", "greet", "--wait")
    assert running.stop() == 0


async def test_a_program_that_is_broken_for_a_while_is_started_again_when_it_is_mended(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("processor = Processor(\n")
    running = dev(start, "app:processor", "--reload")
    running.says("SyntaxError")

    (tmp_path / "app.py").write_text(APP % "mended")
    running.says("runs greet in session")
    assert running.stop(signal.SIGTERM) == 0


def test_nothing_is_left_behind_when_it_is_killed(start: Start) -> None:
    running = dev(start)
    assert running.address
    running.says("runs demo.hello in session")
    children = running.children()
    assert len(children) == 2

    running.stop(signal.SIGKILL)
    until(lambda: not any(is_alive(pid) for pid in children), "its processes have ended", LIMIT_SECONDS)


def test_an_address_that_is_taken_is_said_and_is_75(start: Start, tmp_path: Path) -> None:
    first = dev(start)
    address = first.address
    (tmp_path / "second").mkdir()
    second = Running(
        tmp_path / "second", "dev", "--listen", address, "--http-listen", "", "--database", str(tmp_path / "other.db")
    )
    assert second.process.wait(LIMIT_SECONDS) == 75
    assert address in second.said


@pytest.mark.parametrize(
    ("app", "rule"),
    [
        ("nowhere", "there is no module 'nowhere'"),
        ("app:nothing", "module 'app' has no 'nothing'"),
        ("app:two", "app:two is int; must be a MainScheduler"),
        ("app", "module 'app' must have one MainScheduler, and has none"),
    ],
)
def test_what_cannot_be_run_is_2_and_says_why(start: Start, tmp_path: Path, app: str, rule: str) -> None:
    (tmp_path / "app.py").write_text("two = 2\n")
    running = start("scheduler", "run", app)
    assert running.process.wait(LIMIT_SECONDS) == 2
    assert rule in running.said


async def test_a_processor_and_a_main_scheduler_run_by_their_places(
    start: Start, tmp_path: Path, server_process: ServerProcess
) -> None:
    # given
    (tmp_path / "app.py").write_text(
        (APP % "run") + "from scheduler_client import MainScheduler, Task\n"
        "class Greet(Task):\n    name = 'greet'\n"
        "main = MainScheduler()\nmain.every(seconds=1).do(Greet)\n"
    )
    # when
    processor = start("processor", "run", "app", "--address", server_process.address)
    scheduler = Running(tmp_path, "scheduler", "run", "app:main", "--address", server_process.address)

    # then
    processor.says("greets")
    assert scheduler.stop() == 0
    assert processor.stop() == 0
