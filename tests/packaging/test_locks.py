"""The versions in the images: exact ones, by their hashes, and such as pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.machines import DOCKER, DOCKERFILE
from tests.support.process import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTALLED = {"server": ("server", "postgres", "cli"), "client": ()}
"""The extras of each image."""
LOCKS = ("server", "client", "build")
ENTRY = re.compile(r"^([\w.-]+)==([^ ;\\]+)(?: ; [^\\]+?)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+$", re.MULTILINE)
"""A library, its version, perhaps where it is needed, its hashes."""


def path(lock: str) -> Path:
    return DOCKER / f"lock-{lock}.txt"


def text(lock: str) -> str:
    return path(lock).read_text()


def copied(lock: str) -> str:
    """As the Dockerfile names it."""
    return path(lock).relative_to(ROOT).as_posix()


@cache
def versions(lock: str) -> dict[str, str]:
    """Of each library in a lock."""
    found = [(canonicalize_name(name), version) for name, version in ENTRY.findall(text(lock))]
    assert len(dict(found)) == len(found), "one version of each, whatever the Python"
    return dict(found)


def asked_for(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """What pyproject.toml wants for an installation with these extras."""
    optional = PROJECT["project"]["optional-dependencies"]
    for written in [*PROJECT["project"]["dependencies"], *(one for extra in extras for one in optional[extra])]:
        requirement = Requirement(written)
        if requirement.name == PROJECT["project"]["name"]:
            yield from asked_for(tuple(requirement.extras))
        else:
            yield requirement


def of_lock(lock: str) -> list[Requirement]:
    if lock == "build":
        return [Requirement(written) for written in PROJECT["build-system"]["requires"]]
    return list(asked_for(INSTALLED[lock]))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_exact_versions_with_their_hashes_and_names_no_host(lock: str) -> None:
    lines = [line for line in text(lock).splitlines() if line and not line.lstrip().startswith("#")]
    beginnings = [line for line in lines if not line.startswith(" ")]
    assert len(beginnings) == len(versions(lock)) > 0, "a line is no entry with its hashes: make lock"
    assert "://" not in text(lock) and "make lock" in text(lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_all_that_pyproject_asks_for_in_a_version_that_it_allows(lock: str) -> None:
    for requirement in of_lock(lock):
        name = canonicalize_name(requirement.name)
        assert name in versions(lock), f"{requirement} is not in lock-{lock}.txt: make lock"
        assert requirement.specifier.contains(versions(lock)[name]), f"{requirement}: make lock"


def test_a_client_and_a_server_have_the_same_versions_and_the_client_has_few() -> None:
    assert versions("client").items() <= versions("server").items()
    assert set(versions("client")) <= {
        "grpcio", "grpcio-status", "protobuf", "googleapis-common-protos", "typing-extensions",
    }  # fmt: skip


def test_the_images_are_made_of_the_locks_and_of_nothing_else() -> None:
    installs = re.findall(r"^RUN pip (?:install|wheel) .*$", DOCKERFILE, re.MULTILINE)
    assert len(installs) == len(re.findall("pip (?:install|wheel)", DOCKERFILE)) == 5
    for install in installs:
        by_hash = "--require-hashes --no-deps --requirement /lock.txt" in install
        of_ours = "--no-deps" in install and ("--no-index" in install or "--no-build-isolation" in install)
        assert by_hash or of_ours, install
    for lock in LOCKS:
        assert f"COPY {copied(lock)} /lock.txt\n" in DOCKERFILE


def test_a_change_of_our_code_leaves_the_layer_of_the_libraries_as_it_is() -> None:
    """Each stage that installs a lock stands on nothing that was copied from our folders."""
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
    for stage in ("libraries-server", "libraries-client"):
        assert re.findall(r"^COPY (\S+)", stages[stage], re.MULTILINE) == [copied(stage.removeprefix("libraries-"))]
    for stage, libraries in (("server", "libraries-server"), ("client", "libraries-client")):
        assert re.findall(r"^COPY --from=(\S+)", stages[stage], re.MULTILINE) == [libraries, "ours"]
    before, _, after = stages["wheel"].partition("COPY pyproject.toml")
    assert "lock-build.txt" in before and "pip install" in before and "pip install" not in after
