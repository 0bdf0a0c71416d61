"""The compose command, and what containers are."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.stack import page
from tests.support.process import ROOT

PROJECT = "taskq-test"
IMAGES = ("server", "processor", "scheduler")
EVERY_PROFILE = ("postgres", "observability")
VARIABLES = (
    "TASKQ_PORT", "TASKQ_HTTP_PORT", "TASKQ_PORT_1", "TASKQ_HTTP_PORT_1", "TASKQ_PORT_2", "TASKQ_HTTP_PORT_2",
    "PROMETHEUS_PORT", "GRAFANA_PORT",
)  # fmt: skip


def _free_ports() -> dict[str, str]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in VARIABLES]
        return {name: str(one.getsockname()[1]) for name, one in zip(VARIABLES, sockets, strict=True)}


PORTS = _free_ports()
"""So that a stack that is in use is left alone."""


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def docker(*arguments: str, quiet: bool = False) -> str:
    """Stdout of a docker command; the test ends where it fails."""
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    if ended.returncode and not quiet:
        raise SystemExit(f"docker {' '.join(arguments)}\n{ended.stdout}{ended.stderr}")
    return ended.stdout.strip()


def build(arguments: list[str]) -> None:
    for target in IMAGES:
        *command, folder = page.words(page.BUILD, instead=[("server", target), ("taskq-server", f"taskq-{target}")])
        docker(*command, *arguments, folder)
        size = int(docker("image", "inspect", "--format", "{{.Size}}", f"taskq-{target}"))
        ours = docker("run", "--rm", "--entrypoint=du", f"taskq-{target}", "-sm", "/opt/taskq").split()[0]
        say(f"image taskq-{target}: {size / 1e6:.0f} MB, of which {ours} MiB are not Python and Debian")
        holds_nothing_that_builds(f"taskq-{target}")
    run, *image = page.words(page.HELP)
    assert "Usage: taskq" in docker(run, "--rm", *image)


def holds_nothing_that_builds(image: str) -> None:
    """Of what has built it, and of what is only for us, an image holds nothing."""
    gone = "/source /wheel /ours /build /lock.txt /root/.cache /opt/taskq/bin/pip* /app/tests /app/examples/clients"
    packages = "/opt/taskq/lib/python3*/site-packages"
    tools = " ".join(f"{packages}/{name}" for name in ("pip", "setuptools", "hatchling", "pytest", "mypy", "tests"))
    script = f"ls -d {gone} {tools} 2>/dev/null; find /opt/taskq /app -name .git -o -name .cache 2>/dev/null; true"
    found = docker("run", "--rm", "--entrypoint=sh", image, "-c", script)
    assert not found, f"{image} holds {found}"


def has_image(name: str) -> bool:
    return bool(docker("image", "inspect", "--format", "{{.Id}}", name, quiet=True))


class Stack:
    """What `docker compose` has started."""

    def __init__(self) -> None:
        # Compose of before 2.20 does not know `include`, and finds the file by its name.
        version = docker("compose", "version", "--short").removeprefix("v").split(".")
        self._file = [] if [int(part) for part in version[:2]] >= [2, 20] else ["--file", "docker/compose.yaml"]
        say(f"Docker {docker('version', '--format', '{{.Server.Version}}')}, Compose {'.'.join(version)}")

    def compose(self, *arguments: str, profiles: tuple[str, ...] = ()) -> str:
        chosen = [f"--profile={profile}" for profile in profiles]
        command = ["docker", "compose", "--project-name", PROJECT, *self._file, *chosen, *arguments]
        environment = {**os.environ, **PORTS}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def types(self, command: str, *more: str, instead: Sequence[tuple[str, str]] = ()) -> str:
        """One of the page's commands of compose, for this stack."""
        compose, *words = page.words(command, *more, instead=instead)
        assert compose == "compose"
        return self.compose(*words)

    def up(self, *services: str, profiles: tuple[str, ...] = (), scale: tuple[str, int] | None = None) -> None:
        scaled = ["--scale", f"{scale[0]}={scale[1]}"] if scale else []
        self.compose("up", "--detach", "--no-build", *scaled, *services, profiles=profiles)

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", profiles=EVERY_PROFILE)
        left = docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
        assert not left, f"still there: {left}"

    def containers(self, service: str) -> list[str]:
        """Their ids, those that have ended too."""
        labels = (f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}")
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        return docker("ps", "--all", "--quiet", *filters).split()

    def is_healthy(self, service: str) -> bool:
        states = [inspect(one)["State"] for one in self.containers(service)]
        return bool(states) and all(state.get("Health", {}).get("Status") == "healthy" for state in states)

    def is_running(self, service: str) -> bool:
        states = [inspect(one)["State"] for one in self.containers(service)]
        return bool(states) and all(state["Running"] for state in states)

    def copy_certificates(self, folder: Path) -> None:
        """Those of an administrator and of a scheduler, from the container that has made them."""
        self.types(page.COPY, instead=[("compose-certs", str(folder))])
        (certs,) = self.containers("certs")
        docker("cp", f"{certs}:/certs/scheduler/.", str(folder))

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail=40", profiles=EVERY_PROFILE)


def inspect(container: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("inspect", container))
    return found[0]


def kill(container: str) -> None:
    """SIGKILL."""
    say(f"kill -9 {inspect(container)['Name'].removeprefix('/')}")
    docker("kill", container)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"did not come within {seconds:g} s: {what}")
        time.sleep(0.5)
    say(f"{what}, after {time.monotonic() - began:.0f} s")
