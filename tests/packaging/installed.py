"""The wheel in new environments: `make dist-test`. Needs the package index, and so is no part of `make test`.

`python -m tests.packaging.installed WHEEL PYTHON…` does for each Python what a visitor does: one environment with the
SDK alone, one with each extra; a server from the one, README's programs in the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.examples.pages import programs_of
from tests.support.process import ROOT

SDK = {"taskq", "grpcio", "grpcio-status", "protobuf", "googleapis-common-protos", "typing-extensions"}
EXTRAS = {"server": "sqlalchemy", "postgres": "asyncpg", "cli": "click", "otel": "opentelemetry.trace"}


class Environment:
    """A new virtual environment, which knows nothing of this checkout."""

    def __init__(self, folder: Path, python: str, *requirements: str) -> None:
        self.bin = folder / "bin"
        self.home = folder / "home"
        run(python, "-m", "venv", str(folder))
        self.home.mkdir()
        self.python("-m", "pip", "install", "--quiet", *requirements)
        self.python("-m", "pip", "check")

    def python(self, *arguments: str, **environment: str) -> str:
        return run(str(self.bin / "python"), *arguments, folder=self.home, **environment)

    def taskq(self, *arguments: str, **environment: str) -> str:
        return run(str(self.bin / "taskq"), *arguments, folder=self.home, **environment)

    def installed(self) -> set[str]:
        return {
            one["name"].lower().replace("_", "-")
            for one in json.loads(self.python("-m", "pip", "list", "--format=json"))
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.home, env=clean(**environment), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


def clean(**environment: str) -> dict[str, str]:
    """This process' environment, without what would lead back here."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "TASKQ_"))
    }
    return ours | environment


def run(*command: str, folder: Path | None = None, **environment: str) -> str:
    ended = subprocess.run(
        command, cwd=folder, env=clean(**environment), capture_output=True, text=True, timeout=600, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def a_task_goes_all_the_way(sdk: Environment, server: Environment, folder: Path) -> None:
    """Enqueued and run by programs with the SDK alone, kept by a server from the same wheel."""
    database = f"sqlite:///{folder}/taskq.db"
    serving = server.start("taskq", "server", "--listen=127.0.0.1:0", "--http-listen=", TASKQ_DATABASE_URL=database)
    assert serving.stdout is not None
    address = serving.stdout.readline().split()[-1]
    try:
        assert server.taskq("health", "--address", address, "--connect-timeout=10s").strip() == "SERVING"
        cook_file, order_file = programs_of((ROOT / "README.md").read_text(), folder)
        cook = sdk.start("python", str(cook_file.path), TASKQ_ADDRESS=address)
        try:
            said = sdk.python(str(order_file.path), TASKQ_ADDRESS=address)
            assert said == "stew is served, attempt 1\n", said
        finally:
            cook.terminate()
            assert cook.wait(30) == 0
    finally:
        serving.terminate()
        assert serving.wait(30) == 0
    assert "head" in server.taskq("db", "current", TASKQ_DATABASE_URL=database)


def main(wheel: str, pythons: list[str]) -> None:
    wheel = str(Path(wheel).resolve())
    for python in pythons:
        version = run(python, "-c", "import sys; print(*sys.version_info[:3], sep='.')").strip()
        with tempfile.TemporaryDirectory(prefix="taskq-installed-") as name:
            folder = Path(name)
            sdk = Environment(folder / "sdk", python, wheel)
            found = sdk.installed() - {"pip", "setuptools"}
            assert found <= SDK, found - SDK
            sdk.python("-c", "import scheduler_client.sync, processor_client, taskq.v1.task_pb2")
            for extra, module in EXTRAS.items():
                one = Environment(folder / extra, python, f"{wheel}[{extra}]")
                one.python("-c", f"import {module}")
            whole = Environment(folder / "whole", python, f"{wheel}[all]")
            a_task_goes_all_the_way(sdk, whole, folder)
        print(f"Python {version}: SDK of {', '.join(sorted(found))}; a task went all the way", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or [sys.executable])
