"""Servers by a name: `taskq config`, and what counts when flags, the environment and a profile say different things."""

from __future__ import annotations

import errno
import os
import shlex
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result
from google.protobuf.message_factory import GetMessageClass

from admin_client import rpcs, running
from admin_client.command import main
from taskq.v1 import admin_service_pb2, schedule_service_pb2, scheduler_service_pb2
from taskq.v1.bulk_operation_pb2 import StartBulkOperationRequest
from tests.clients.command_support import NOTHING_SET, a_process, command_line, on_a_terminal, own_environment

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The command of somebody who has no profile yet."""
    folders = {"XDG_CONFIG_HOME": str(tmp_path / "own"), "XDG_CONFIG_DIRS": str(tmp_path / "shared")}

    def run(*words: str, input: str | None = None, **environment: str) -> Result:
        return CliRunner().invoke(main, words, input=input, env={**NOTHING_SET, **folders, **environment})

    return run


@pytest.fixture
def done(run: Run) -> Callable[..., str]:
    def done(*words: str, **more: str) -> str:
        result = run(*words, **more)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return done


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own" / "taskq" / "config.toml"


def written(file: Path, text: str, mode: int = 0o600) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def called(run: Run, *flags: str, **environment: str) -> list[str]:
    """How the server would be called, as grpcurl's flags."""
    result = run("server-info", "--grpcurl", *flags, **environment)
    assert result.exit_code == 0, result.stderr
    words = shlex.split(result.stdout)
    return [word for word in words[1:-1] if word not in ("-d", "{}")]


PROD = """\
use = "prod"

[profiles.prod]
address = "queue.example:50051"
tls_ca = "/certs/ca.pem"
token_file = "prod.token"

[profiles.dev]
address = "127.0.0.1:7"
tls = false
"""
TOKEN = "authorization: Bearer $TASKQ_TOKEN"
TLS = ["-cacert", "/certs/ca.pem"]


# ── set, get, list, use, delete ──────────────────────────────────────────────────────────────────────────────────────


def test_a_profile_is_made_used_shown_and_deleted(done: Callable[..., str], file: Path) -> None:
    done("config", "set", "prod", "--address", "queue.example:50051", "--tls-ca", "/certs/ca.pem")
    done("config", "set", "prod", "--token-file", "/run/token")
    done("config", "set", "dev", "--address", "127.0.0.1:7", "--plaintext")
    done("config", "use", "prod")

    assert done("config", "list", "-o", "table") == (
        "NAME  IN USE  ADDRESS              TLS  TOKEN\n"
        "dev           127.0.0.1:7          no\n"
        "prod  yes     queue.example:50051  yes  /run/token\n"
    )
    assert done("config", "list", "-o", "name") == "dev\nprod\n"
    assert done("config", "get", "-o", "table") == (
        "name:       prod\n"
        "in use:     yes\n"
        "address:    queue.example:50051\n"
        "tls ca:     /certs/ca.pem\n"
        "token file: /run/token\n"
    )
    assert file.read_text() == (
        'use = "prod"\n\n[profiles.dev]\naddress = "127.0.0.1:7"\ntls = false\n\n'
        '[profiles.prod]\naddress = "queue.example:50051"\ntls_ca = "/certs/ca.pem"\ntoken_file = "/run/token"\n'
    )

    done("config", "delete", "prod")
    assert done("config", "list", "-o", "name") == "dev\n"
    assert "use" not in file.read_text()


def test_only_the_owner_can_read_the_file_also_when_it_was_open_before(done: Callable[..., str], file: Path) -> None:
    written(file, PROD, 0o644)
    done("config", "set", "prod", "--tls-server-name", "queue")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_is_named_from_everywhere(
    done: Callable[..., str], file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done("config", "set", "prod", "--token-file", "token", "--tls-ca", "ca.pem")
    assert f'tls_ca = "{tmp_path}/ca.pem"' in file.read_text()
    assert f'token_file = "{tmp_path}/token"' in file.read_text()


def test_a_token_is_never_shown_and_gives_way_to_its_file(done: Callable[..., str], file: Path) -> None:
    shown = done("config", "set", "prod", "--token", "-", input="tq_secret\n")
    assert "tq_secret" not in shown + done("config", "get", "prod", "--json") + done("config", "list", "-o", "yaml")
    assert 'token = "tq_secret"' in file.read_text()

    done("config", "set", "prod", "--token-file", "/run/token")
    assert "tq_secret" not in file.read_text()


def test_what_is_unset_is_left_to_the_environment_again(run: Run, done: Callable[..., str], file: Path) -> None:
    written(file, PROD)
    done("config", "set", "prod", "--unset", "token-file", "--unset", "tls-ca")
    assert called(run, TASKQ_TLS_CA="/other.pem") == ["-cacert", "/other.pem", "queue.example:50051"]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["set", "a b", "--address", "x:1"], "must be letters, digits, _ and -"),
        (["set", "p", "--token", "a", "--token-file", "b"], "has a token and a token_file; must have one"),
        (["set", "p", "--tls-cert", "a.pem"], "must have both tls_cert and tls_key, or neither"),
        (["set", "p", "--plaintext", "--tls-ca", "a.pem"], "contradict each other"),
        (["set", "p", "--address", "a\nb"], "address must be text, on one line"),
        (["use", "nobody"], "there is no profile 'nobody'"),
        (["use"], "either a NAME, or --none"),
        (["get"], "no profile is in use"),
        (["delete", "nobody"], "there is no profile 'nobody'"),
    ],
)
def test_what_cannot_be_a_profile_is_refused_and_nothing_is_written(
    run: Run, file: Path, words: list[str], rule: str
) -> None:
    result = run("config", *words)
    assert result.exit_code == 2
    assert rule in result.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "mode", "rule"),
    [
        ("use = ", 0o600, "cannot be read: "),
        ("profile = 1", 0o600, "tables called [profiles.NAME]"),
        ("[profiles.p]\naddres = 'x'", 0o600, "has addres; must be of address, tls, "),
        ("[profiles.p]\ntls = 'yes'", 0o600, "tls must be true or false"),
        ("[profiles.p]\ntoken = 'a'\ntoken_file = 'b'", 0o600, "must have one"),
        ("[profiles.p]\ntoken = 'a'", 0o640, "others can read it: chmod 600 "),
        ("use = 'gone'", 0o600, "there is no profile 'gone'"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_rule(run: Run, file: Path, text: str, mode: int, rule: str) -> None:
    written(file, text, mode)
    result = run("task", "list")
    assert result.exit_code == 2
    assert str(file) in result.stderr and rule in result.stderr


def test_a_file_that_cannot_be_read_is_named_and_never_written_over(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(file, PROD)
    reading = Path.open

    def refusing(path: Path, mode: str = "r", *more: Any, **named: Any) -> IO[Any]:
        if path == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return reading(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", refusing)
    for words in (["task", "list"], ["config", "set", "new", "--address", "x:1"], ["config", "use", "--none"]):
        result = run(*words)
        assert result.exit_code == 2
        assert f"{file} cannot be read: Permission denied" in result.stderr
    monkeypatch.undo()
    assert file.read_text() == PROD


def test_nothing_is_known_of_a_folder_that_cannot_be_entered(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*path: Any, **named: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as refused:
        refused.setattr(Path, "open", refusing)
        refused.setattr(Path, "lstat", refusing)
        assert called(run) == ["-plaintext", "127.0.0.1:50051"]


def test_a_file_that_is_a_link_stays_one(done: Callable[..., str], file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "taskq.toml"
    written(kept, PROD)
    file.parent.mkdir(parents=True)
    file.symlink_to(kept)
    done("config", "use", "dev")
    assert file.is_symlink() and 'use = "dev"' in kept.read_text()


def test_none_is_none_also_where_the_machine_has_one_in_use(
    run: Run, done: Callable[..., str], file: Path, tmp_path: Path
) -> None:
    written(tmp_path / "shared" / "taskq" / "config.toml", 'use = "a"\n[profiles.a]\naddress = "s:1"\n', 0o644)
    done("config", "use", "--none")
    assert called(run) == ["-plaintext", "127.0.0.1:50051"]
    done("config", "set", "b", "--address", "o:2")
    assert called(run) == ["-plaintext", "127.0.0.1:50051"]


def test_who_is_still_typing_gets_the_names_and_no_complaint(file: Path, tmp_path: Path) -> None:
    asked = {"_TASKQ_COMPLETE": "bash_complete", "COMP_WORDS": "taskq task list --profile p", "COMP_CWORD": "4"}

    def told() -> str:
        environment = own_environment(**asked, XDG_CONFIG_HOME=str(tmp_path / "own"))
        return subprocess.run(command_line(), env=environment, capture_output=True, text=True, check=False).stdout

    written(file, PROD)
    assert told() == "plain,prod\n"
    written(file, "use = ")
    assert told().strip() == ""


# ── what counts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_profile_in_use_says_where_the_server_is_and_what_lets_one_in(run: Run, file: Path) -> None:
    written(file, PROD)
    token = f"authorization: Bearer $(cat {file.parent}/prod.token)"
    assert called(run) == [*TLS, "-H", token, "queue.example:50051"]
    assert called(run, "--profile", "dev") == ["-plaintext", "127.0.0.1:7"]
    assert called(run, TASKQ_PROFILE="dev") == ["-plaintext", "127.0.0.1:7"]
    assert called(run, "--profile", "prod", TASKQ_PROFILE="dev")[-1] == "queue.example:50051"


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        (["--token", "mine"], {}, [*TLS, "-H", TOKEN, "queue.example:50051"]),
        ([], {"TASKQ_TOKEN": "mine"}, [*TLS, "-H", TOKEN, "queue.example:50051"]),
        (["--profile", "prod", "--address", "q2:1", "--token", "t"], {}, [*TLS, "-H", TOKEN, "q2:1"]),
        (["--tls-ca", "b.pem", "--token", "t"], {}, ["-cacert", "b.pem", "-H", TOKEN, "queue.example:50051"]),
        (["--plaintext", "--token", "t"], {}, ["-plaintext", "-H", TOKEN, "queue.example:50051"]),
        (["--token", "t"], {"TASKQ_TLS": "false"}, ["-plaintext", "-H", TOKEN, "queue.example:50051"]),
        (["--profile", "dev", "--tls-ca", "b.pem"], {}, ["-cacert", "b.pem", "127.0.0.1:7"]),
    ],
)
def test_flags_win_over_it_and_the_environment_over_one_that_no_flag_names(
    run: Run, file: Path, flags: list[str], environment: Mapping[str, str], expected: list[str]
) -> None:
    written(file, PROD)
    assert called(run, *flags, **environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"TASKQ_ADDRESS": "q2:1", "TASKQ_TOKEN": "t"},
        {"TASKQ_ADDRESS": "q2:1"},
        {"TASKQ_ADDRESS": "q2:1", "TASKQ_PROFILE": "dev"},
        {"TASKQ_TOKEN_FILE": "t", "TASKQ_TLS": "false"},
        {"TASKQ_TLS_CA": "other.pem"},
    ],
)
def test_one_that_a_flag_names_wins_over_the_environment(
    run: Run, file: Path, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a program that is started: else its token would go to the server that the environment names."""
    written(file, PROD)
    token = f"authorization: Bearer $(cat {file.parent}/prod.token)"
    assert called(run, "--profile", "prod", **environment) == [*TLS, "-H", token, "queue.example:50051"]
    assert called(run, "--profile", "prod", "--address", "q3:1", **environment) == [*TLS, "-H", token, "q3:1"]

    told: list[Mapping[str, str]] = []
    monkeypatch.setattr(running, "become", lambda kind, app, environment, *more: told.append(environment))
    assert run("processor", "run", "app", "--profile", "prod", **environment).exit_code == 0
    names = ("TASKQ_ADDRESS", "TASKQ_TLS_CA", "TASKQ_TLS", "TASKQ_TOKEN", "TASKQ_TOKEN_FILE")
    found = {name: told[0][name] for name in names if told[0].get(name)}
    assert found == {
        "TASKQ_ADDRESS": "queue.example:50051",
        "TASKQ_TLS_CA": "/certs/ca.pem",
        "TASKQ_TOKEN_FILE": f"{file.parent}/prod.token",
    }


@pytest.mark.parametrize(
    ("words", "environment", "rule"),
    [
        ([], {"TASKQ_PROFILE": "prod"}, "TASKQ_PROFILE is 'prod' and TASKQ_ADDRESS is 'q2:1'; must be one of the two"),
        (["--profile", "open"], {}, "profile 'open' has no address, and TASKQ_ADDRESS is 'q2:1'"),
    ],
)
def test_where_nobody_can_know_which_server_is_meant_none_is_called(
    run: Run, file: Path, words: list[str], environment: Mapping[str, str], rule: str
) -> None:
    written(file, PROD + '[profiles.open]\ntoken = "t"\n')
    for verb in (["task", "list"], ["processor", "run", "app"]):
        result = run(*verb, *words, **environment, TASKQ_ADDRESS="q2:1")
        assert (result.exit_code, rule in result.stderr) == (2, True), result.stderr


def test_the_token_of_a_profile_that_no_flag_named_goes_to_no_other_server(run: Run, file: Path) -> None:
    written(file, PROD)
    assert called(run, "--address", "127.0.0.1:9") == ["-plaintext", "127.0.0.1:9"]
    assert called(run, TASKQ_ADDRESS="127.0.0.1:9") == ["-plaintext", "127.0.0.1:9"]
    assert called(run, "--address", "127.0.0.1:9", TASKQ_PROFILE="prod") == ["-plaintext", "127.0.0.1:9"]


def test_ones_own_profiles_win_over_those_of_the_machine(
    run: Run, done: Callable[..., str], file: Path, tmp_path: Path
) -> None:
    written(tmp_path / "shared" / "taskq" / "config.toml", 'use = "a"\n[profiles.a]\naddress = "s:1"\n', 0o644)
    assert called(run) == ["-plaintext", "s:1"]

    written(file, '[profiles.a]\naddress = "o:1"\n[profiles.b]\naddress = "o:2"\n')
    assert called(run) == ["-plaintext", "o:1"]
    done("config", "use", "b")
    assert called(run) == ["-plaintext", "o:2"]
    assert done("config", "list", "-o", "name") == "a\nb\n"


def test_an_error_says_whose_address_it_was(run: Run, file: Path) -> None:
    written(file, 'use = "p"\n[profiles.p]\naddress = "127.0.0.1:1"\n')
    result = run("task", "list")
    assert result.exit_code == 78
    assert "no server answers at 127.0.0.1:1 (profile p)\n" in result.stderr
    assert "(profile" not in run("task", "list", "--address", "127.0.0.1:1").stderr


def test_whoever_is_shown_a_call_is_told_to_set_the_token_that_the_profile_holds(run: Run, file: Path) -> None:
    written(file, 'use = "p"\n[profiles.p]\naddress = "x:1"\ntoken = "tq_secret"\n')
    missing = "TASKQ_TOKEN must hold the token of profile p\n"
    result = run("server-info", "--grpcurl")
    assert "Bearer $TASKQ_TOKEN" in result.stdout and result.stderr == missing
    named = ("server-info", "--grpcurl", "--profile", "p")
    assert run(*named, TASKQ_TOKEN="another").stderr == missing
    assert run(*named, TASKQ_TOKEN="tq_secret").stderr == ""
    assert run(*named, "--token", "mine").stderr == ""


def test_a_program_that_is_started_finds_the_same_server(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(file, PROD)
    told: list[Mapping[str, str]] = []
    monkeypatch.setattr(running, "become", lambda kind, app, environment, *more: told.append(environment))

    result = run("processor", "run", "app")
    assert (result.exit_code, result.stderr) == (0, "prod, queue.example:50051\n")
    found = {name: value for name, value in told[0].items() if name.startswith("TASKQ_")}
    assert found == {
        "TASKQ_ADDRESS": "queue.example:50051",
        "TASKQ_TLS_CA": "/certs/ca.pem",
        "TASKQ_TOKEN_FILE": f"{file.parent}/prod.token",
    }


@pytest.mark.parametrize("kind", ["processor", "scheduler"])
def test_a_program_says_which_server_it_finds_only_where_nobody_else_has(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(running, "become", lambda *what: None)
    written(file, PROD)
    assert run(kind, "run", "app").stderr == "prod, queue.example:50051\n"
    assert run(kind, "run", "app", "--profile", "prod").stderr == ""
    assert run(kind, "run", "app", "--address", "x:1").stderr == ""
    assert run(kind, "run", "app", TASKQ_PROFILE="prod").stderr == ""
    written(file, 'use = "near"\n[profiles.near]\ntoken = "t"\n')
    assert run(kind, "run", "app").stderr == "near, 127.0.0.1:50051\n"


async def test_on_a_terminal_whoever_changes_something_sees_where(file: Path, tmp_path: Path) -> None:
    """Also when it then fails; whoever only looks does not, nor a program that reads what is said."""
    written(file, 'use = "prod"\n[profiles.prod]\naddress = "127.0.0.1:1"\n')
    own = {"XDG_CONFIG_HOME": str(tmp_path / "own")}
    enqueue = ("task", "enqueue", "x", "--timeout", "1s")
    assert (await on_a_terminal("", *enqueue, **own)).out.startswith("prod, 127.0.0.1:1\n")
    assert "prod, " not in (await on_a_terminal("", *enqueue, "--profile", "prod", **own)).out
    assert "prod, " not in (await on_a_terminal("", "task", "list", "--timeout", "1s", **own)).out
    process = await a_process(*enqueue, **own)
    assert b"prod, " not in (await process.communicate())[1]


def test_a_call_that_changes_something_is_told_from_one_that_looks() -> None:
    assert rpcs.changes(StartBulkOperationRequest()) and not rpcs.changes(StartBulkOperationRequest(dry_run=True))
    looking = {
        f"{verb}{what}"
        for verb, whats in {
            "Get": ["Task", "BulkOperation", "Stats", "ServerInfo", "Schedule"],
            "List": [
                "Tasks", "BulkOperations", "FailureGroups", "AuditEntries", "Processors", "Capabilities", "Schedules",
            ],
            "Explain": ["Task"], "Preview": ["Schedule"], "Watch": ["Events", "Task"],
        }.items() for what in whats
    }  # fmt: skip
    found = set()
    for file in (admin_service_pb2, schedule_service_pb2, scheduler_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if not rpcs.changes(GetMessageClass(method.input_type)()):
                    found.add(method.name)
    assert found == looking


def test_a_probe_asks_the_same_server_and_calls_a_wrong_file_wrong_arguments(run: Run, file: Path) -> None:
    written(file, '[profiles.p]\naddress = "127.0.0.1:1"\n')
    answer = run("health", "--profile", "p", "--connect-timeout", "1ms")
    assert answer.exit_code == 2 and "127.0.0.1:1" in answer.stderr

    answer = run("health", "--profile", "gone")
    assert answer.exit_code == 1 and "there is no profile 'gone'" in answer.stderr


def test_in_a_container_there_may_be_no_home(run: Run) -> None:
    """Nor is it an error that somebody else's cannot be looked into."""
    assert called(run, HOME="/proc/1/nobody", XDG_CONFIG_HOME="") == ["-plaintext", "127.0.0.1:50051"]
