"""Whether what the stand-ins were called with goes together with the files of this repository."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

import yaml

from tests.packaging.machines import COMPOSE, DOCKER, DOCKERFILE, STACK
from tests.support.process import ROOT

KNOWN = ("docker", "kubectl", "make", "pip", "python3")
"""What is written down instead of run: it would need an engine, a network or minutes. What they are to run elsewhere is
run here."""
MAKEFILES = (ROOT / "Makefile").read_text() + (ROOT / "protos" / "languages.mk").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILES, re.MULTILINE))
FORMER_VOLUMES = ("certs",)
"""Which the page tells to remove."""
IMAGES = re.findall(r"^FROM \S+ AS (server|processor|scheduler)$", DOCKERFILE, re.MULTILINE)
MANIFESTS = "\n".join(path.read_text() for path in sorted((DOCKER / "kubernetes").glob("*.yaml")))
DEPLOYMENTS = re.findall(r"^kind: Deployment\nmetadata:\n  name: (\S+)$", MANIFESTS, re.MULTILINE)


class Parser(argparse.ArgumentParser):
    """Of one kind of call; what it does not know is a mistake of the page, or is to be added here."""

    def error(self, message: str) -> NoReturn:
        raise AssertionError(f"{self.prog}: {message}")


def words_of(text: str) -> list[str]:
    """As a shell splits it, `{a,b}` too."""
    found: list[str] = []
    for word in shlex.split(text):
        braces = re.search(r"\{(\w+(?:,\w+)+)\}", word)
        found += [word.replace(braces[0], one) for one in braces[1].split(",")] if braces else [word]
    return found


def check(call: Sequence[str], folder: Path) -> None:
    """Fails for a call that names what is not there; `folder` is where it was made."""
    match list(call):
        case ["docker", "compose", *rest]:
            _compose(rest)
        case ["docker", "build", "--file", file, "--target", target, "--tag", tag, "."]:
            assert (ROOT / file).is_file() and target in IMAGES and tag == f"taskq-{target}"
        case ["docker", "run", image, *_]:
            assert image.removeprefix("taskq-") in IMAGES
        case ["docker", "swarm", "init"]:
            pass
        case ["docker", "secret", "create", name, file]:
            assert name in STACK["secrets"], f"{name} is no secret of docker/stack.yaml"
            assert file == "database_url" or (folder / file).is_file(), f"{file} is not there by then"
        case ["docker", "stack", "deploy", "--compose-file", file, "taskq"]:
            assert (ROOT / file).is_file()
        case ["docker", "service", "scale", service]:
            assert service.partition("=")[0].removeprefix("taskq_") in STACK["services"]
        case ["docker", "volume", "rm", *volumes]:
            assert {volume.removeprefix("taskq_") for volume in volumes} <= {*COMPOSE["volumes"], *FORMER_VOLUMES}
        case ["kubectl", "--namespace", "taskq", *rest] | ["kubectl", *rest]:
            _kubectl(rest)
        case ["make", *words]:
            for word in words:
                variable, is_variable, _ = word.partition("=")
                assert re.search(rf"\b{variable}\b", MAKEFILES) if is_variable else word in TARGETS, f"make {word}"
        case ["pip", "install", what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            named = re.fullmatch(r"(?:\.|taskq)\[([\w,]+)\]", what)
            assert named and set(named[1].split(",")) <= set(extras), what
        case ["pip", "install", "--upgrade", name]:
            assert f'"{name}' in (ROOT / "pyproject.toml").read_text(), name
        case ["python3", "-m", "venv", _] | [".", ".venv/bin/activate"]:
            pass
        case _:
            raise AssertionError(f"nobody knows whether this is right: {' '.join(call)}")


def _compose(words: list[str]) -> None:
    parser = Parser("docker compose")
    parser.add_argument("--project-name")
    parser.add_argument("--file", default="compose.yaml")
    parser.add_argument("--profile", action="append", default=[])
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up")
    up.add_argument("--detach", action="store_true")
    up.add_argument("--build", action="store_true")
    up.add_argument("--scale", action="append", default=[])
    up.add_argument("services", nargs="*")
    verbs.add_parser("down").add_argument("--volumes", action="store_true")
    copy = verbs.add_parser("cp")
    copy.add_argument("source")
    copy.add_argument("target")
    for verb in ("exec", "run"):
        inside = verbs.add_parser(verb)
        inside.add_argument("--rm", action="store_true")
        inside.add_argument("service")
        inside.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    named = [*getattr(given, "services", []), *(one.partition("=")[0] for one in getattr(given, "scale", []))]
    named += [given.service] if "service" in given else [given.source.partition(":")[0]] if "source" in given else []
    profiles = {name for service in COMPOSE["services"].values() for name in service.get("profiles", [])}
    assert (ROOT / given.file).is_file(), given.file
    assert set(named) <= set(COMPOSE["services"]), named
    assert set(given.profile) <= profiles | {"*"}, given.profile
    if "source" in given:
        service, _, path = given.source.partition(":")
        volumes = [volume.split(":")[1] for volume in COMPOSE["services"][service]["volumes"]]
        assert any(PurePosixPath(path).is_relative_to(volume) for volume in volumes), f"{path} is none of {volumes}"


def _kubectl(words: list[str]) -> None:
    match words:
        case ["create", "namespace", name]:
            assert f"namespace: {name}" in MANIFESTS
        case ["create", "secret", "generic", name, source]:
            key = source.removeprefix("--from-file=").partition("=")[0]
            assert f"secretName: {name}" in MANIFESTS and f"/{key}" in MANIFESTS
        case ["apply", "--kustomize", path]:
            kustomization = ROOT / path / "kustomization.yaml"
            resources = yaml.safe_load(kustomization.read_text())["resources"]
            assert [one for one in resources if not (ROOT / path / one).is_file()] == []
        case ["apply", "--filename", path]:
            assert (ROOT / path).is_file(), path
        case ["exec", target, "--", *_]:
            assert target in [f"deploy/{name}" for name in DEPLOYMENTS], target
        case _:
            raise AssertionError(f"nobody knows whether this is right: kubectl {' '.join(words)}")
