"""The commands of docs/http.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.process import ROOT, ServerProcess

PAGE = (ROOT / "docs" / "http.md").read_text()
SCRIPTS = {block.splitlines()[0].removeprefix("# "): block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_commands_of_the_page_are_answered_by_a_server(tmp_path: Path) -> None:
    server = ServerProcess(f"sqlite:///{tmp_path}/taskq.db", http_listen="127.0.0.1:0")
    with server.log:
        server.start()
        try:
            answers = {name: run(script, server, tmp_path) for name, script in SCRIPTS.items()}
        finally:
            server.kill()
    enqueued, found, cancelled = answers["enqueue.sh"]
    assert enqueued["results"][0]["outcome"] == "ENQUEUE_OUTCOME_CREATED"
    assert (found["task"]["name"], cancelled["task"]["state"]) == ("kitchen.cook", "TASK_STATE_CANCELLED")
    created, listed = answers["schedule.sh"]
    assert [one["name"] for one in listed["schedules"]] == [created["schedule"]["name"]] == ["kitchen.breakfast"]
    paused, _, resumed = answers["kitchen.sh"]
    assert paused["pause"]["reason"] == resumed["pause"]["reason"] == "no gas"
    assert json.loads((tmp_path / "openapi.json").read_text())["openapi"] == "3.1.0"
    assert answers["connect.sh"][0]["apiVersions"] == ["taskq.v1"]
    assert set(answers) == {"enqueue.sh", "schedule.sh", "kitchen.sh", "connect.sh"}


def run(script: str, server: ServerProcess, folder: Path) -> list[dict]:  # type: ignore[type-arg]
    """What each command prints: one JSON object."""
    environment = {**os.environ, "TASKQ_HTTP": server.http_address}
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("\ncurl", "\necho; curl")],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in ended.stdout.splitlines() if line]
