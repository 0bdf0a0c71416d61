"""Every fenced block of every page is run, or read by what it is written for: no page shows what nobody has tried.

Programs in Python, the runbook and the page about HTTP have tests of their own. All other commands are typed here, in
the order of their page, and what they print is compared with what the page shows. What would need an engine, a network
or minutes is made by stand-ins, which look whether it goes together with the files of this repository; who runs it
really stands in ELSEWHERE.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

import grpc
import pytest

from admin_client.commands.completion import SHELLS
from taskq.v1 import processor_service_pb2, scheduler_service_pb2, task_pb2
from taskq_server.config import Config
from taskq_server.settings import load
from tests.examples import scenes, stand_ins
from tests.examples.blocks import Block, blocks_of, commands_of, pages, spans_of
from tests.examples.scenes import Scene, Stage
from tests.examples.terminal import Terminal, is_alike, missing_for, terminal
from tests.examples.test_clients import CLIENTS, LANGUAGES
from tests.packaging.machines import COMPOSE
from tests.stack import page as stack_page
from tests.support.process import ROOT, ServerProcess

BLOCKS = [block for page in pages() for block in blocks_of(page)]
OWN_TESTS = {
    ("docs/admin.md", "bash"): "test_runbook.py",
    ("docs/http.md", "sh"): "test_http_page.py",
    ("docs/operation.md", "sql"): "test_two_roles.py",
    ("README.md", "python"): "test_readme.py",
}
"""Blocks that have a test beside this one; all Python blocks of the manual have test_manual.py."""
pytestmark = pytest.mark.timeout(300)  # a command of ours takes a second to begin where many run
OF_CLIENTS = re.compile(r"examples/clients/(go|java|typescript)/README\.md")
"""Their commands are those by which test_clients.py builds and runs them."""
SCENES: dict[str, Scene] = {
    "README.md": scenes.nothing,
    "CONTRIBUTING.md": scenes.nothing,
    "docs/clients.md": scenes.a_processor_of_mine,
    "docs/command.md": scenes.a_first_task_and_a_profile,
    "docs/docker.md": scenes.a_stack_of_compose,
    "docs/observing.md": scenes.a_server,
    "docs/operation.md": scenes.a_restaurant,
    "docs/schedules.md": scenes.a_server,
    "docs/security.md": scenes.a_token,
    "docs/start.md": scenes.nothing,
}
"""The pages whose commands are typed, and what stands around them."""
ELSEWHERE = {
    "make demo": "tests/examples/test_cook_pasta.py",
    "make test": "make test",
    "make lint": "make lint",
    "make proto && docker compose up": "make docker-test",
    "make proto LANG=go": "tests/examples/test_clients.py",
    "python3 -m venv .venv && . .venv/bin/activate": "make dist-test",
    "pip install '.[all]'": "make dist-test",
    "docker compose run --rm operator processor list": "make docker-test",
    "docker compose run --rm operator task list --address server-1:50051": "make docker-test",
    "mkdir -p compose-certs && docker compose cp certs:/certs/admin/. compose-certs": "make docker-test",
    "docker compose exec server taskq token create me --right admin": "make docker-test",
    "docker build --file docker/Dockerfile --target server --tag taskq-server .": "make docker-test",
    "docker run taskq-server --help": "make docker-test",
    "docker swarm init": "tests/packaging/test_compose.py",
    "docker secret create taskq_database_url database_url": "tests/packaging/test_compose.py",
    "for file in ca.pem {server,probe,processor,scheduler}.{pem,key}; "
    "do docker secret create taskq_$file certs/$file; done":
        "tests/packaging/test_compose.py",
    "TASKQ_REGISTRY=registry.example/ TASKQ_TAG=0.1.0 docker stack deploy --compose-file docker/stack.yaml taskq":
        "tests/packaging/test_compose.py",
    "docker service scale taskq_processor=50": "tests/packaging/test_compose.py",
    "kubectl create namespace taskq": "tests/packaging/test_kubernetes.py",
    "kubectl --namespace taskq create secret generic taskq-database --from-file=url=database_url":
        "tests/packaging/test_kubernetes.py",
    "kubectl apply --kustomize docker/kubernetes": "tests/packaging/test_kubernetes.py",
    "kubectl --namespace taskq exec deploy/taskq-server -- taskq token create prometheus --right read":
        "tests/packaging/test_kubernetes.py",
    "kubectl apply --filename docker/kubernetes/autoscaling.yaml": "tests/packaging/test_kubernetes.py",
}  # fmt: skip
"""What a stand-in makes here, and who makes it really, or reads what it is about with the schema of its reader."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(f"sqlite:///{tmp_path_factory.mktemp('blocks')}/taskq.db", http_listen="127.0.0.1:0")
    with process.log:
        process.start()
        yield process
        process.kill()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    with terminal(tmp_path) as one:
        yield one


def test_every_block_is_run_or_read() -> None:
    """A new block belongs to a program, to a page whose commands are typed, or to a reader below."""
    assert len(BLOCKS) >= 60
    assert [str(block) for block in BLOCKS if not who_tests(block)] == []


def who_tests(block: Block) -> str:
    """Who runs it or reads it; empty if nobody does."""
    if is_output(block):
        return "the test of the program above it"
    if reader_of(block) is not None:
        return "its reader"
    if block.language == "python" and block.page.startswith("docs/"):
        return "test_manual.py"
    if block.language == "{toctree}":
        return "make docs"
    if own := OWN_TESTS.get((block.page, block.language)):
        return own
    if block.language in ("", "sh", "bash", "console"):
        return "its page" if block.page in SCENES else "test_clients.py" if OF_CLIENTS.match(block.page) else ""
    return ""


def is_output(block: Block) -> bool:
    """It follows a program."""
    before = [other for other in blocks_of(block.page) if other.line < block.line]
    if block.language != "text" or not before or before[-1].language != "python":
        return False
    lines = (ROOT / block.page).read_text().splitlines()[before[-1].line : block.line - 1]
    return lines[-2:] == ["```", ""]


@pytest.mark.parametrize("page", sorted(SCENES))
def test_the_commands_of_a_page_do_what_it_says(
    page: str, shell: Terminal, server: ServerProcess, request: pytest.FixtureRequest
) -> None:
    if missing := missing_for("".join(block.text for block in typed(page))):
        pytest.skip(f"THE COMMANDS OF {page} ARE NOT TYPED: {missing}")
    stage = Stage(shell, server, lambda: request.getfixturevalue("postgres_url"))
    with SCENES[page](stage):
        for block in typed(page):
            for command in commands_of(block):
                printed = shell.types(command)
                where = f"{block}: {command.text}"
                assert not command.shown or is_alike(shell.here(command.shown), printed), f"{where}\n{printed}"
                calls = shell.calls()
                for call in calls:
                    stand_ins.check(call, shell.folder)
                assert bool(calls) == (command.text in ELSEWHERE), f"{where} is made by stand-ins, or is not: {calls}"


def typed(page: str) -> list[Block]:
    return [block for block in blocks_of(page) if who_tests(block) == "its page"]


def test_what_is_made_elsewhere_stands_on_a_page_and_is_made_by_something_that_there_is() -> None:
    said = {command.text for page in SCENES for block in typed(page) for command in commands_of(block)}
    assert set(ELSEWHERE) - said == set()
    for who in set(ELSEWHERE.values()):
        assert who.removeprefix("make ") in stand_ins.TARGETS or (ROOT / who).is_file(), who


def test_what_docker_test_is_said_to_make_it_types_as_the_page_has_it() -> None:
    said = {command for command, who in ELSEWHERE.items() if who == "make docker-test"}
    assert said == set(stack_page.COMMANDS)


def test_a_command_of_the_page_is_given_to_the_engine_for_another_folder_and_without_a_terminal() -> None:
    assert stack_page.words(stack_page.COPY, instead=[("compose-certs", "/tmp/here")]) == [
        "compose", "cp", "certs:/certs/admin/.", "/tmp/here",
    ]  # fmt: skip
    assert stack_page.words(stack_page.PROCESSORS, "-o", "name") == [
        "compose", "run", "-T", "--rm", "operator", "processor", "list", "-o", "name",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "is_right"), [("/certs/admin/.", True), ("/certs/admin", True), ("/certs/.", False), ("/etc", False)]
)
def test_what_is_copied_out_of_a_container_must_be_in_a_volume_of_its_service(path: str, is_right: bool) -> None:
    with nullcontext() if is_right else pytest.raises(AssertionError, match="is none of"):
        stand_ins.check(["docker", "compose", "cp", f"certs:{path}", "compose-certs"], ROOT)


@pytest.mark.parametrize("page", pages())
def test_what_a_sentence_says_of_docker_make_and_the_like_goes_together_with_what_there_is(
    page: str, tmp_path: Path
) -> None:
    for span in spans_of(page):
        if re.match(rf"(?:{'|'.join(stand_ins.KNOWN)}) ", span):
            for command in span.split(" && "):
                stand_ins.check(stand_ins.words_of(command), tmp_path)


@pytest.mark.parametrize("page", [page for page in pages() if OF_CLIENTS.match(page)])
def test_the_commands_of_a_clients_page_are_those_by_which_it_is_tested(page: str) -> None:
    (language,) = (one for one in LANGUAGES if f"/{one.name}/" in page)
    folder = f"{CLIENTS / language.name}/"
    known = [*language.building, language.processor, language.scheduler, ("make", "proto", f"LANG={language.name}")]
    commands = [
        re.sub(r"^(?:[A-Z_]+=\S* )+|\s*&$", "", simple.strip())
        for block in blocks_of(page) if who_tests(block) == "test_clients.py"
        for command in commands_of(block) for simple in command.text.split("&&")
    ]  # fmt: skip
    for command in commands:
        words = command.replace("'", "").replace('"', "").removeprefix("taskq conformance --command ").split()
        assert any(holds(words, [word.replace(folder, "") for word in one]) for one in known), f"{page}: {command}"
    assert len(commands) >= 4


def holds(said: list[str], tested: list[str] | tuple[str, ...]) -> bool:
    """Whether it is that command, perhaps without some of its flags; a scheduler is told what to order."""
    words = [word for word in tested if not word.startswith("-") or word in said]
    return said[: len(words)] == words and len(said) <= len(words) + 1


# Readers: of blocks that are no commands.


def reads_a_diagram_of_states(block: Block, server: ServerProcess) -> None:
    states = [name.removeprefix("TASK_STATE_") for name in task_pb2.TaskState.DESCRIPTOR.values_by_name]
    assert set(re.findall(r"\b[A-Z]{3,}\b", block.text)) == set(states) - {"UNSPECIFIED"}


def reads_a_diagram_of_calls(block: Block, server: ServerProcess) -> None:
    service = processor_service_pb2.DESCRIPTOR.services_by_name["ProcessorService"]
    said = re.findall(r"\b([A-Z]\w+[a-z])\b(?=\(| ──►)", block.text)
    assert len(said) == 5 and set(said) <= set(service.methods_by_name)


def reads_addresses(block: Block, server: ServerProcess) -> None:
    default = Config.model_fields
    said = dict(line.split()[:2] for line in block.text.splitlines())
    assert said == {
        "TASKQ_ADDRESS": default["listen"].default,
        "TASKQ_HTTP": f"http://{default['http_listen'].default}",
    }


def reads_rights(block: Block, server: ServerProcess) -> None:
    assert load([], {"TASKQ_CERT_RIGHTS": block.text}).cert_rights == block.text


def reads_a_filter(block: Block, server: ServerProcess) -> None:
    command = [sys.executable, "-m", "admin_client.command", "task", "list", "--address", server.address]
    subprocess.run([*command, "--filter", block.text.strip()], cwd=ROOT, check=True, capture_output=True, timeout=60)


def reads_a_refusal(block: Block, server: ServerProcess) -> None:
    """It is the answer to a task with that priority."""
    wrong = json.dumps({"tasks": [{"name": "kitchen.cook", "priority": 12}]}).encode()
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(f"http://{server.http_address}/v1/tasks", wrong, headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=60)
    assert json.loads(refused.value.read()) == json.loads(block.text)


def reads_a_service_config(block: Block, server: ServerProcess) -> None:
    """gRPC takes it: what it names is called four times, when the server is away; what it does not name, once."""
    asked: list[str] = []

    def away(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        raise AssertionError

    class Counting(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            asked.append(str(details.method))
            return grpc.unary_unary_rpc_method_handler(away)

    named = [f"/{one['service']}/{one['method']}" for one in json.loads(block.text)["methodConfig"][0]["name"]]
    services = [*processor_service_pb2.DESCRIPTOR.services_by_name.values()]
    services += scheduler_service_pb2.DESCRIPTOR.services_by_name.values()
    there = {f"/{service.full_name}/{method}" for service in services for method in service.methods_by_name}
    assert set(named) <= there
    refusing = grpc.server(ThreadPoolExecutor(2), handlers=[Counting()])
    port = refusing.add_insecure_port("127.0.0.1:0")
    refusing.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.service_config", block.text)]) as channel:
            for method in (named[1], "/taskq.v1.ProcessorService/Register"):
                with suppress(grpc.RpcError):
                    channel.unary_unary(method)(b"")
    finally:
        refusing.stop(0)
    assert asked == [named[1]] * 4 + ["/taskq.v1.ProcessorService/Register"]


def reads_a_dockerfile(block: Block, server: ServerProcess) -> None:
    image = re.findall(r"^FROM (\S+)$", block.text, re.MULTILINE)
    assert set(image) <= {service.get("image") for service in COMPOSE["services"].values()}
    assert json.loads(re.findall(r"^CMD (.*)$", block.text, re.MULTILINE)[0])


def reads_a_usage(block: Block, server: ServerProcess) -> None:
    words = block.text.split()
    command = [sys.executable, "-m", "admin_client.command", words[1], "--help"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    assert [flag for flag in re.findall(r"--[a-z-]+", block.text) if flag not in said] == []


def reads_lines_of_shells(block: Block, server: ServerProcess) -> None:
    """Each names its shell; what the command prints for it is tested where the command is."""
    assert [line.split()[0] for line in block.text.splitlines()] == list(SHELLS)
    assert all(f"taskq completion {line.split()[0]}" in line for line in block.text.splitlines())


def reads_a_proxy(block: Block, server: ServerProcess) -> None:
    """It passes on what comes to where HTTP listens, and does not hold up events."""
    start, *within, end = block.text.splitlines()
    said = dict(line.strip().removesuffix(";").split(" ", 1) for line in within if line.endswith(";"))
    assert (start, len(said), end) == ("location /taskq/ {", len(within), "}")
    assert said["proxy_pass"] == f"http://{Config.model_fields['http_listen'].default}"
    assert (said["proxy_set_header"], said["proxy_buffering"]) == ("Host $http_host", "off")


def reads_a_handler(block: Block, server: ServerProcess) -> None:
    """What it calls, and what it is given, is what the clients of that language have."""
    folder = (ROOT / block.page).parent
    sources = [path for path in folder.rglob("*.*") if path.suffix in (".go", ".ts", ".java")]
    text = "\n".join(path.read_text() for path in sources if "node_modules" not in path.parts)
    called = set(re.findall(r"\b((?:from|to)JSON|taskq\.\w+|Payloads\.\w+|AssignedTask|Handler)\b", block.text))
    assert len(called) >= 2
    assert {name for name in called if not re.search(rf"\b{re.escape(name)}\b", text)} == set()


def reads_a_module(block: Block, server: ServerProcess) -> None:
    """The generated code is that module."""
    module = re.findall(r"-replace (\S+)=", block.text)[0]
    assert f"module {module}\\n" in (ROOT / "protos" / "languages.mk").read_text()


def reads_a_rule_of_a_firewall(block: Block, server: ServerProcess) -> None:
    """The kernel takes it, in a network of its own, where it keeps nobody out."""
    unshare = shutil.which("unshare")
    iptables = shutil.which("iptables", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    alone = [str(unshare), "--map-root-user", "--net"]
    if unshare is None or iptables is None or subprocess.run([*alone, iptables, "-S"], capture_output=True).returncode:
        pytest.skip(f"THE RULE OF {block} IS NOT TRIED: there is no iptables, or no network of one's own")
    rule = block.text.replace("\\\n", " ").split()
    assert rule[0] == "iptables" and f"--dport={Config().listen.rpartition(':')[2]}" in "=".join(rule)
    done = subprocess.run([*alone, iptables, *rule[1:]], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


Reader = Callable[[Block, ServerProcess], None]
READERS: list[tuple[str, Reader]] = [
    ("                  lease                    succeed", reads_a_diagram_of_states),
    ("Register ──►", reads_a_diagram_of_calls),
    ("TASKQ_ADDRESS   127.0.0.1:50051", reads_addresses),
    ("# the ovens", reads_rights),
    ("state:FAILED", reads_a_filter),
    ('{"error": {"code": 400', reads_a_refusal),
    ('{"methodConfig": [', reads_a_service_config),
    ("FROM taskq-processor", reads_a_dockerfile),
    ("taskq health [SERVICE]", reads_a_usage),
    ("bash  eval", reads_lines_of_shells),
    ("iptables -A", reads_a_rule_of_a_firewall),
    ("func sendInvoice(", reads_a_handler),
    ("const sendInvoice:", reads_a_handler),
    ("  private record Invoice(", reads_a_handler),
    ("go mod edit ", reads_a_module),
    ("location /taskq/ {", reads_a_proxy),
]
"""How a block begins, and who reads it."""


def reader_of(block: Block) -> Reader | None:
    return next((reader for start, reader in READERS if block.text.startswith(start)), None)


@pytest.mark.parametrize("block", [block for block in BLOCKS if reader_of(block)], ids=str)
def test_what_is_no_command_is_taken_by_what_it_is_written_for(block: Block, server: ServerProcess) -> None:
    reader = reader_of(block)
    assert reader is not None
    reader(block, server)


def test_every_reader_has_something_to_read() -> None:
    assert {start for start, _ in READERS if not any(block.text.startswith(start) for block in BLOCKS)} == set()
