"""The clients of examples/clients in other languages: generated, built and run, where their toolchains are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from admin_client.conformance.promises import ALL
from taskq.v1 import scheduler_service_pb2 as pb
from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server
from taskq.v1.task_pb2 import TASK_STATE_SUCCEEDED, Task
from tests.support.authority import Authority
from tests.support.process import ROOT, ServerProcess

CLIENTS = ROOT / "examples" / "clients"
JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]
JAVA_CLASSES = f"{CLIENTS}/java/target/classes:{CLIENTS}/java/target/lib/*"
BUILDING_SECONDS = 900  # the first time, when everything is fetched

UNREACHABLE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|E403|dial tcp|no such host|Unknown host|"
    r"Could not transfer (?:artifact|metadata)|403 Forbidden|Could not resolve host|"
    r"SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_(?:GET|VERIFY)\w+|PKIX path building failed"
)
"""How package managers say that what they need cannot be fetched, which is no fault of the clients."""

pytestmark = pytest.mark.timeout(BUILDING_SECONDS + 120)


@dataclass(frozen=True)
class Language:
    """How its clients are built and run."""

    name: str
    tools: tuple[str, ...]
    building: tuple[tuple[str, ...], ...]
    processor: list[str]
    scheduler: list[str]


LANGUAGES = [
    Language(
        "go",
        ("go",),
        (("go", "vet", "./..."), ("go", "test", "./..."), ("go", "build", "-o", "bin/", "./cmd/...")),
        [f"{CLIENTS}/go/bin/cook"],
        [f"{CLIENTS}/go/bin/order"],
    ),
    Language(
        "typescript",
        ("node", "npm"),
        (("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline"), ("npm", "run", "build")),
        ["node", f"{CLIENTS}/typescript/dist/cook.js"],
        ["node", f"{CLIENTS}/typescript/dist/order.js"],
    ),
    Language(
        "java",
        ("javac", "mvn"),
        (("mvn", "-B", "-q", "compile"),),
        [*JAVA, JAVA_CLASSES, "kitchen.Cook"],
        [*JAVA, JAVA_CLASSES, "kitchen.Order"],
    ),
]


@pytest.fixture(scope="module", params=LANGUAGES, ids=lambda language: language.name)
def language(request: pytest.FixtureRequest) -> Language:
    """A language whose clients are built."""
    language: Language = request.param
    if missing := [tool for tool in language.tools if shutil.which(tool) is None]:
        pytest.skip(f"THE CLIENTS IN {language.name.upper()} ARE NOT TESTED: {', '.join(missing)} is not on the path")
    try:
        run(["make", "proto", f"LANG={language.name}"], ROOT)
        for command in language.building:
            run(list(command), CLIENTS / language.name)
    except AssertionError as failed:
        if unreachable := UNREACHABLE.search(str(failed)):
            pytest.skip(f"THE CLIENTS IN {language.name.upper()} ARE NOT TESTED: no registry: {unreachable[0]}")
        raise
    return language


def run(command: list[str], folder: Path, **environment: str) -> str:
    """What it says; it must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BUILDING_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Site:
    """A server that speaks TLS alone and asks who is there, and the settings of its clients."""

    server: ServerProcess
    settings: dict[str, str]


@pytest.fixture(params=["token", "certificate"])
def site(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[Site]:
    authority = Authority(tmp_path)
    pair = authority.signs("server", common_name="server")  # Java takes none without a subject
    by_certificate = request.param == "certificate"
    asking = certificates_are_required(authority) if by_certificate else {"auth": "required"}
    server = ServerProcess(database_url, tls_cert=pair.cert, tls_key=pair.key, **asking)
    with server.log:
        server.start()
        shown = a_certificate(authority) if by_certificate else a_token(database_url)
        yield Site(server, {"TASKQ_ADDRESS": server.address, "TASKQ_TLS_CA": authority.ca, **shown})
        server.kill()


def certificates_are_required(authority: Authority) -> dict[str, str]:
    """The server's settings in the compose stack, in swarm and in Kubernetes."""
    rights = "taskq:kitchen/dev=enqueue:kitchen.cook,process:*"
    return {"tls_client_ca": authority.ca, "tls_client_auth": "require", "cert_rights": rights}


def a_certificate(authority: Authority) -> dict[str, str]:
    pair = authority.signs("kitchen", hosts=(), uri="taskq:kitchen/dev", common_name="kitchen")
    return {"TASKQ_TLS_CERT": pair.cert, "TASKQ_TLS_KEY": pair.key}


def a_token(database_url: str) -> dict[str, str]:
    rights = ["--right=enqueue:kitchen.cook", "--right=process:*"]
    command = [sys.executable, "-m", "taskq_server.tokens", "create", "kitchen", *rights]
    return {"TASKQ_TOKEN": run(command, ROOT, TASKQ_DATABASE_URL=database_url).strip()}


def test_the_processor_keeps_every_promise(language: Language) -> None:
    command = [sys.executable, "-m", "admin_client.command", "conformance", "--jobs=16", "--patience=30", "--command"]

    said = run([*command, " ".join(language.processor)], ROOT)

    assert f"{len(ALL)} of {len(ALL)} promises hold" in said


def test_the_scheduler_is_answered_by_the_processor_by_tls_with_a_token_or_a_certificate(
    language: Language, site: Site, tmp_path: Path
) -> None:
    log = tmp_path / "processor.log"
    with log.open("wb") as said:
        processor = subprocess.Popen(language.processor, env={**os.environ, **site.settings}, stdout=said, stderr=said)
    try:
        served = run([*language.scheduler, "crème brûlée"], ROOT, **site.settings)
    finally:
        processor.terminate()
        code = processor.wait(60)
    assert served.strip() == '"crème brûlée is served, attempt 1"', log.read_text()
    assert code == 0, log.read_text()


@pytest.mark.parametrize("outcome", ["CONFLICT", "REJECTED"])
def test_the_scheduler_fails_when_its_task_is_not_stored_and_waits_for_no_other(
    language: Language, outcome: str
) -> None:
    with refusing(outcome) as address:
        settings = {"TASKQ_ADDRESS": address, "TASKQ_TOKEN": "", "TASKQ_TLS_CA": ""}
        done = subprocess.run(
            language.scheduler, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60, check=False
        )

    assert done.returncode != 0
    assert outcome in done.stderr
    assert not done.stdout


@contextmanager
def refusing(outcome: str) -> Iterator[str]:
    """A server that stores nothing, though it knows a task of that id."""

    class Refusing(SchedulerServiceServicer):
        def Enqueue(self, request: pb.EnqueueRequest, context: object) -> pb.EnqueueResponse:
            value = pb.EnqueueOutcome.Value(f"ENQUEUE_OUTCOME_{outcome}")
            return pb.EnqueueResponse(results=[pb.EnqueueResult(task_id=request.tasks[0].task_id, outcome=value)])

        def WatchTask(self, request: pb.WatchTaskRequest, context: object) -> Iterator[pb.WatchTaskResponse]:
            yield pb.WatchTaskResponse(task=Task(task_id=request.task_id, state=TASK_STATE_SUCCEEDED))

    server = grpc.server(ThreadPoolExecutor(2))
    add_SchedulerServiceServicer_to_server(Refusing(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def test_neither_goes_where_its_token_could_be_read(language: Language) -> None:
    settings = {"TASKQ_ADDRESS": "192.0.2.1:50051", "TASKQ_TOKEN": "tq_secret", "TASKQ_TLS_CA": ""}
    for command in (language.processor, language.scheduler):
        done = subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode != 0
        assert "tq_secret" not in done.stdout + done.stderr
