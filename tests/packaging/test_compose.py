"""The compose file and the stack for a swarm: what is promised is in them, and says what taskq understands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from admin_client.health import health
from client_core.access import ENVIRONMENT, TLS
from examples.cook_pasta.cooks import COOKS
from taskq_server.values import span
from tests.packaging.machines import (
    COMPOSE,
    DOCKER,
    DRAIN_SECONDS,
    OF_CLIENTS,
    SERVICES,
    STACK,
    client_variables,
    name_of,
    server_settings,
)
from tests.support.process import ROOT

OURS = [(name, service) for name, service in SERVICES if "taskq-" in service["image"]]
SERVERS = [(name, service) for name, service in OURS if "test" in service.get("healthcheck", ())]
PROCESSORS = [(name, service) for name, service in OURS if "taskq-processor" in service["image"]]
CLIENTS = [(name, service) for name, service in OURS if "taskq-server" not in service["image"]]


def variables(service: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in service.get("environment", {}).items() if name.startswith("TASKQ_")}


def compose_schema() -> Any:
    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    return json.loads(vendored.read_text())


@pytest.mark.parametrize("path", ["compose.yaml", "docker/compose.yaml", "docker/stack.yaml"])
def test_a_compose_file_is_one(path: str) -> None:
    jsonschema.validate(yaml.safe_load((ROOT / path).read_text()), compose_schema())


def test_it_is_found_from_the_root() -> None:
    assert yaml.safe_load((ROOT / "compose.yaml").read_text())["include"] == ["docker/compose.yaml"]


def test_the_parts_that_were_promised_are_there() -> None:
    services = COMPOSE["services"]
    without_profile = {name for name, service in services.items() if "profiles" not in service}
    assert without_profile == {"certs", "server", "scheduler", "processor", "baker"}
    assert {profile for service in services.values() for profile in service.get("profiles", ())} == {
        "postgres",
        "observability",
        "operator",
    }


@pytest.mark.parametrize(("name", "service"), COMPOSE["services"].items(), ids=name_of)
def test_what_a_service_waits_for_comes_up_in_the_same_profile(name: str, service: dict[str, Any]) -> None:
    for other in service.get("depends_on", ()):
        profiles = COMPOSE["services"][other].get("profiles")
        assert profiles is None or profiles == service.get("profiles"), f"{name} waits for {other}"


@pytest.mark.parametrize(("name", "service"), COMPOSE["services"].items(), ids=name_of)
def test_ports_are_open_on_this_machine_alone(name: str, service: dict[str, Any]) -> None:
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize(("name", "service"), COMPOSE["services"].items(), ids=name_of)
def test_what_is_mounted_is_there(name: str, service: dict[str, Any]) -> None:
    for mount in service.get("volumes", ()):
        source = mount.partition(":")[0]
        assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


@pytest.mark.parametrize(("name", "service"), OURS, ids=name_of)
def test_a_service_of_ours_can_do_no_more_than_it_must(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service and "user" not in service


@pytest.mark.parametrize(("name", "service"), COMPOSE["services"].items(), ids=name_of)
def test_an_image_of_ours_is_built_and_no_registry_is_asked_for_it(name: str, service: dict[str, Any]) -> None:
    is_ours = service["image"].startswith("taskq-")
    assert is_ours == ("build" in service) == (service.get("pull_policy") == "never")


def test_there_is_a_server_on_sqlite_and_two_on_postgresql_and_those_of_the_swarm() -> None:
    assert sorted(name for name, _ in SERVERS) == ["server", "server", "server-1", "server-2"]


@pytest.mark.parametrize(("name", "service"), SERVERS, ids=name_of)
def test_a_server_understands_its_settings_and_asks_everybody_who_they_are(
    name: str, service: dict[str, Any], tmp_path: Path
) -> None:
    settings = server_settings(variables(service), tmp_path)
    assert settings.auth_required and not settings.is_exposed
    assert settings.tls_client_auth == "require"
    assert span(service["stop_grace_period"]) > settings.stop_grace


@pytest.mark.parametrize(("name", "service"), SERVERS, ids=name_of)
def test_a_server_is_asked_for_its_health_with_flags_that_there_are(name: str, service: dict[str, Any]) -> None:
    kind, program, command, *flags = service["healthcheck"]["test"]
    assert (kind, program, command) == ("CMD", "taskq", "health")
    given = health.make_context("health", flags).params
    assert given["tls_ca"] and given["tls_cert"].endswith("probe.pem") and given["tls_key"].endswith("probe.key")


def fill(folder: Path) -> None:
    """Runs the script of `certs` on folders in the place of its volumes."""
    service = COMPOSE["services"]["certs"]
    for mount in service["volumes"]:
        volume, _, path = mount.partition(":")
        assert path == f"/certs/{volume.removeprefix('certs-')}"
        (folder / volume.removeprefix("certs-")).mkdir(parents=True, exist_ok=True)
    (script,) = service["command"]
    with tempfile.TemporaryDirectory() as new:
        script = script.replace("$$", "$").replace("cd /certs", f"cd {folder}").replace("/tmp/new", f"{new}/new")
        path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{ROOT}/generated"}
        subprocess.run([*service["entrypoint"], script], env=os.environ | path, check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/[!.]*")}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volumes of certificates, as they are filled on the first start."""
    folder = tmp_path_factory.mktemp("certs")
    fill(folder)
    return folder


def keys_of(service: dict[str, Any], certificates: Path) -> set[str]:
    """The roles whose keys a service can read, by its secrets or in its volumes."""
    found = {secret["source"] for secret in service.get("secrets", ()) if isinstance(secret, dict)}
    for mount in service.get("volumes", ()):
        if isinstance(mount, str) and mount.startswith("certs-"):
            volume = mount.removeprefix("certs-").partition(":")[0]
            found |= {path.name for path in (certificates / volume).glob("*.key")}
    return {name.removeprefix("taskq_").removesuffix(".key") for name in found}


@pytest.mark.parametrize(("name", "service"), OURS, ids=name_of)
def test_a_service_can_read_its_own_keys_and_nobody_elses(
    name: str, service: dict[str, Any], certificates: Path
) -> None:
    if (name, service) in SERVERS:
        own = {"server", "probe"}
    elif name == "certs":
        own = {"server", "probe", "processor", "scheduler", "admin"}
    else:
        of_image = {"taskq-processor": {"processor"}, "taskq-scheduler": {"scheduler"}}
        image = service["image"].removeprefix("${TASKQ_REGISTRY-}").partition(":")[0]
        own = {"admin"} if name == "operator" else of_image.get(image, set())
    assert keys_of(service, certificates) == own


def test_the_key_of_the_ca_is_kept_nowhere_and_its_certificate_everywhere(certificates: Path) -> None:
    assert not list(certificates.rglob("ca.key"))
    assert all((volume / "ca.pem").exists() for volume in certificates.iterdir())


def test_certificates_are_made_once_and_anew_for_all_when_a_volume_is_gone(tmp_path: Path) -> None:
    fill(tmp_path)
    first = contents(tmp_path)
    fill(tmp_path)
    assert contents(tmp_path) == first
    shutil.rmtree(tmp_path / "admin")
    fill(tmp_path)
    anew = contents(tmp_path)
    assert anew.keys() == first.keys() and not anew.items() & first.items()
    assert len({anew[name] for name in anew if name.endswith("/ca.pem")}) == 1


@pytest.mark.parametrize(("name", "service"), CLIENTS, ids=name_of)
def test_a_client_understands_its_settings_and_comes_by_tls(name: str, service: dict[str, Any]) -> None:
    said = variables(service)
    assert client_variables(said) <= OF_CLIENTS
    assert isinstance(ENVIRONMENT.tls_now(said), TLS)
    assert "healthcheck" not in service


@pytest.mark.parametrize(("name", "service"), PROCESSORS, ids=name_of)
def test_a_processor_is_a_cook_and_has_the_time_to_drain(name: str, service: dict[str, Any]) -> None:
    assert service["command"][:3] == ["python3", "-m", "examples.cook_pasta.cooks"]
    assert service["command"][3] in COOKS
    assert span(service["stop_grace_period"]) > DRAIN_SECONDS


def cooks(profiles: list[str] | None) -> list[tuple[str, str]]:
    """Who cooks for which server in this profile."""
    services = [service for _, service in PROCESSORS if service.get("profiles") == profiles and "deploy" not in service]
    return [(service["command"][3], service["environment"]["TASKQ_ADDRESS"]) for service in services]


def test_there_are_processors_of_two_kinds_and_on_postgresql_one_on_each_server() -> None:
    assert cooks(None) == [("mario", "server:50051"), ("luigi", "server:50051")]
    assert [address for _, address in cooks(["postgres"])] == ["server-1:50051", "server-2:50051"]


def test_the_certificates_are_made_out_to_the_names_of_the_servers() -> None:
    hosts = set(re.findall(r"--host (\S+)", COMPOSE["services"]["certs"]["command"][0]))
    addresses = {
        service["environment"]["TASKQ_ADDRESS"].partition(":")[0]
        for service in COMPOSE["services"].values()
        if "TASKQ_ADDRESS" in service.get("environment", {})
    }
    assert addresses == hosts


def test_every_secret_of_the_swarm_is_declared_and_no_key_is_open_to_others() -> None:
    for service in STACK["services"].values():
        for secret in service.get("secrets", ()):
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in STACK["secrets"]
            assert not source.endswith(".key") or secret["mode"] == 0o400


def test_the_stack_asks_for_nothing_that_a_swarm_ignores() -> None:
    ignored = {"build", "depends_on", "restart", "security_opt", "tmpfs", "privileged", "profiles", "network_mode"}
    assert [
        (name, ignored & set(service)) for name, service in STACK["services"].items() if ignored & set(service)
    ] == []


def test_docker_itself_takes_the_stack_file() -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command on this machine")
    read = subprocess.run(
        ["docker", "stack", "config", "-c", str(DOCKER / "stack.yaml")], capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
