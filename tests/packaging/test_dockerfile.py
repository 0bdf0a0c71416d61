"""The Dockerfile: its stages, and what they take from the checkout."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib

import pytest

from admin_client.health import health
from taskq_server.values import default_database_url
from tests.packaging.machines import DOCKERFILE, SERVICES
from tests.support.process import ROOT


def targets() -> dict[str, str]:
    """Each stage, and all that it inherits or is."""
    stages: dict[str, str] = {}
    for part in re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]:
        base, name = re.match(r"FROM (\S+) AS (\S+)", part).groups()  # type: ignore[union-attr]
        stages[name] = stages.get(base, "") + part
    return stages


@pytest.mark.parametrize("target", ["server", "processor", "scheduler"])
def test_an_image_is_nobodys_and_can_be_stopped(target: str) -> None:
    stage = targets()[target]
    assert "USER 10001:10001" in stage and "STOPSIGNAL SIGTERM" in stage
    assert re.search(r'^CMD \["', stage, re.MULTILINE), "no shell stands between it and its signals"


def test_the_server_has_a_health_check_that_its_command_understands() -> None:
    found = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", targets()["server"], re.MULTILINE)
    assert found is not None
    program, command, *flags = json.loads(found[1])
    assert (program, command) == ("taskq", "health")
    health.make_context("health", flags)


def test_the_base_is_an_argument_and_no_registry_is_named() -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+-slim$", DOCKERFILE, re.MULTILINE)
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(bases) <= {"${PYTHON_IMAGE}", *targets()}
    for _, service in SERVICES:
        host, slash, _ = service["image"].partition("/")
        assert not slash or ("." not in host and ":" not in host.partition("}")[2]), service["image"]


def test_what_is_copied_is_there_and_is_sent_to_the_engine() -> None:
    sent = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()
    ]
    assert len(copied) >= 8
    for path in copied:
        assert (ROOT / path).exists()
        assert path.split("/")[0] in sent or any(fnmatch.fnmatch(path, pattern) for pattern in sent), path


def test_what_is_sent_to_the_engine_is_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*", "all that is not named stays here"
    for line in lines:
        if line.startswith("!"):
            assert re.search(rf"^COPY .*{re.escape(line[1:].partition('*')[0])}", DOCKERFILE, re.MULTILINE), line


@pytest.mark.parametrize("target", ["server", "processor", "scheduler"])
def test_of_what_builds_an_image_it_has_only_what_was_installed(target: str) -> None:
    copied = set(re.findall(r"--from=(\S+) (\S+)", targets()[target]))
    libraries = "libraries-server" if target == "server" else "libraries-client"
    assert copied == {(libraries, "/opt/taskq"), ("ours", "/ours/opt/taskq")}
    assert not re.search(r"^RUN .*pip", targets()[target], re.MULTILINE)
    assert "pip uninstall --yes pip setuptools\n" in targets()[libraries]


def test_the_images_are_made_of_all_packages_of_the_wheel() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in wheel["packages"]:
        assert f"COPY {package} /source/{package}\n" in DOCKERFILE


def test_the_server_keeps_its_database_in_its_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = targets()["server"]
    (volume,) = re.findall(r"^VOLUME (\S+)$", stage, re.MULTILINE)
    (state,) = re.findall(r"XDG_STATE_HOME=(\S+)", stage)
    monkeypatch.setenv("XDG_STATE_HOME", state)
    assert default_database_url() == f"sqlite:///{volume}/taskq.db"


def test_the_page_gives_the_sizes_that_were_found_when_the_images_were_last_tried() -> None:
    tried = (ROOT / "docs" / "docker-test.txt").read_text()
    sizes = dict(re.findall(r"image taskq-(\w+): .* of which (\d+ MiB) are not Python and Debian", tried))
    assert sizes["processor"] == sizes["scheduler"]
    said = f"the server's image has {sizes['server']}, the others {sizes['processor']}.\n"
    assert said in (ROOT / "docs" / "docker.md").read_text()


def test_the_page_ends_all_that_any_profile_has_started() -> None:
    """Else what still runs keeps the old volumes."""
    page = (ROOT / "docs" / "docker.md").read_text()
    assert "docker compose down" not in page and page.count("docker compose --profile '*' down") == 2
