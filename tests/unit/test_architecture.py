"""What no linter says: gRPC ignores options that it does not know, and code must not wait for time by itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from grpc._cython import cygrpc

from taskq_server.rpc.server import OPTIONS
from tests.support.process import ROOT

SERVER = sorted((ROOT / "taskq_server").rglob("*.py"))
KNOWN_TO_GRPC = Path(cygrpc.__file__).read_bytes()
"""The library itself: every channel argument that it reads stands in it as a C string."""
CLIENTS_KEEPALIVE_MS = 20_000


def is_known(key: str) -> bool:
    return key.encode() + b"\0" in KNOWN_TO_GRPC


@pytest.mark.parametrize("key", [key for key, _ in OPTIONS])
def test_every_option_of_the_server_is_one_that_grpc_knows(key: str) -> None:
    assert key.startswith("grpc.")
    assert is_known(key)


@pytest.mark.parametrize("key", ["grpc.max_pings", "grpc.http2.min_recv_ping_interval_without_data_ms", "grpc.x"])
def test_an_option_that_does_not_exist_would_be_noticed(key: str) -> None:
    assert not is_known(key)


def test_the_options_keep_what_the_contract_promises() -> None:
    options = dict(OPTIONS)
    assert len(options) == len(OPTIONS)
    assert options["grpc.max_receive_message_length"] == 4 << 20
    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.compression_enabled_algorithms_bitset"] == 1
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 10_000 < CLIENTS_KEEPALIVE_MS
    assert options["grpc.keepalive_permit_without_calls"] == 1


def calls_in(path: Path) -> set[str]:
    """The dotted names that a module calls."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", SERVER, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_on_the_servers_event_loop_sleeps(path: Path) -> None:
    assert "asyncio.sleep" not in calls_in(path)
    if path.parts[-2:] != ("sqlite", "start.py"):  # which waits for a file before there is a loop's worth of work
        assert "time.sleep" not in calls_in(path)


def test_only_the_clock_asks_the_time() -> None:
    asking = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "datetime.now", "datetime.utcnow"}
    found = {str(path.relative_to(ROOT / "taskq_server")) for path in SERVER if calls_in(path) & asking}
    # an id is spread by time but never compared with one, and a lock file says to people since when it is held
    assert found <= {"clock.py", "task_id.py", "store/sqlite/start.py"}


@pytest.mark.parametrize("path", SERVER, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_what_it_is(path: Path) -> None:
    if "versions" not in path.parts and path.name != "env.py":
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_every_task_that_runs_in_the_background_is_kept() -> None:
    # the event loop holds tasks weakly: one that nobody keeps may be collected while it waits
    loose = []
    for path in SERVER:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            dropped = node.value if isinstance(node, ast.Expr) else None
            if isinstance(dropped, ast.Call) and ast.unparse(dropped.func).endswith(("create_task", "ensure_future")):
                loose.append(f"{path}:{dropped.lineno}")
    assert not loose
