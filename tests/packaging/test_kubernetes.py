"""The manifests: what Kubernetes takes, and what taskq understands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from client_core.access import ENVIRONMENT, TLS
from examples.cook_pasta.cooks import COOKS
from tests.packaging.machines import DOCKER, DRAIN_SECONDS, OF_CLIENTS, client_variables, server_settings
from tests.unit.test_alerts_and_boards import check as check_promql

MANIFESTS: list[dict[str, Any]] = [
    document
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
OF_OTHERS = ("Kustomization", "ScaledObject")
"""Kinds that Kubernetes itself does not know."""


def of_kubernetes(kind: str) -> Iterator[dict[str, Any]]:
    return (document for document in MANIFESTS if document["kind"] == kind)


@pytest.mark.parametrize(
    "document",
    [one for one in MANIFESTS if one["kind"] not in OF_OTHERS],
    ids=lambda one: f"{one['kind']}-{one['metadata']['name']}",
)
def test_a_manifest_is_what_kubernetes_takes(document: dict[str, Any]) -> None:
    for release in ("1.29", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(document, release, strict=True)


def deployment(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod of a deployment, and its container."""
    (found,) = (one for one in of_kubernetes("Deployment") if one["metadata"]["name"] == name)
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_a_servers_pod_is_set_as_the_server_understands_and_has_the_time_to_stop(tmp_path: Path) -> None:
    pod, container = deployment("taskq-server")
    settings = server_settings(environment_of(container), tmp_path)
    (_, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > settings.stop_grace + int(pause)
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe")} == {"/readyz"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez", "it must not follow readiness"


def test_a_processors_pod_has_the_time_to_drain(tmp_path: Path) -> None:
    pod, container = deployment("taskq-processor")
    assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS
    assert isinstance(ENVIRONMENT.tls_now(environment_of(container)), TLS)
    assert client_variables(environment_of(container)) <= OF_CLIENTS


@pytest.mark.parametrize("name", ["taskq-server", "taskq-processor"])
def test_a_pod_is_nobodys_and_keeps_to_what_is_mounted(name: str) -> None:
    pod, container = deployment(name)
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    for one in [container, *pod.get("initContainers", ())]:
        assert (
            one["securityContext"]["readOnlyRootFilesystem"] and not one["securityContext"]["allowPrivilegeEscalation"]
        )
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in one["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", ["taskq-server", "taskq-processor"])
def test_a_budget_and_a_service_are_for_pods_that_there_are(name: str) -> None:
    (labels,) = (
        one["spec"]["selector"]["matchLabels"] for one in of_kubernetes("Deployment") if one["metadata"]["name"] == name
    )
    budgets = {
        one["metadata"]["name"]: one["spec"]["selector"]["matchLabels"] for one in of_kubernetes("PodDisruptionBudget")
    }
    assert budgets[name] == labels
    (service,) = of_kubernetes("Service")
    assert service["spec"]["selector"]["app.kubernetes.io/component"] == "server"


def test_processors_are_scaled_by_the_age_of_the_oldest_due_task_of_what_they_run() -> None:
    (scaled,) = of_kubernetes("ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"] == "taskq-processor"
    (trigger,) = scaled["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    check_promql(query)
    assert "max(taskq_oldest_due_age_seconds{" in query
    _, container = deployment("taskq-processor")
    runs = {capability for task in COOKS[container["args"][3]] for capability in task.CAPABILITIES}
    found = re.search(r'capability=~"([^"]*)"', query)
    assert found is not None and set(found[1].split("|")) == runs
