"""Peers that mean harm, by raw sockets: the server lives, does not swell, and serves others as before.

Each attack is run in plaintext and, where that differs, by TLS, while an honest client goes on enqueueing.
"""

from __future__ import annotations

import asyncio
import random
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from client_core.access import TLS, Access
from client_core.channel import open_blocking_channel
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq.v1 import task_pb2
from taskq_server.server import OWN_FILES, _affordable
from tests.conftest import StartServer
from tests.support import hostile
from tests.support.authority import Authority
from tests.support.hostile import connected, sent
from tests.support.process import ServerProcess
from tests.support.raw import RawScheduler, a_task
from tests.support.waiting import let_pass, until

GROWTH_MIB = 64
HONEST_SECONDS = 1.0
"""The 99th percentile of an honest client."""
NOISE_SECONDS = 3
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""
ATTACK_SECONDS = 1.0
GET_TASK = hostile.call("SchedulerService/GetTask")


class Target:
    """A server, and the honest client that goes on while it is attacked."""

    def __init__(self, server: ServerProcess, access: Access) -> None:
        self.server = server
        self.address = server.address
        self.is_tls = isinstance(access.tls, TLS)
        self.channel = open_blocking_channel(server.address, access=access)
        self.scheduler = RawScheduler(self.channel)

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @contextmanager
    def withstands(self) -> Iterator[None]:
        """While this is attacked, an honest client is served; afterwards the server lives and has not swollen."""
        self.scheduler.enqueue(a_task())
        before, largest = self.memory_mib(), 0.0
        times: list[float] = []
        faults: list[grpc.RpcError] = []
        over = threading.Event()

        def be_honest() -> None:
            while not over.wait(0.01):
                began = time.monotonic()
                try:
                    self.scheduler.enqueue(a_task(), timeout=10)
                except grpc.RpcError as fault:
                    faults.append(fault)
                times.append(time.monotonic() - began)

        honest = threading.Thread(target=be_honest)
        honest.start()
        try:
            yield
            let_pass(0.2)
            largest = self.memory_mib() - before
        finally:
            over.set()
            honest.join()
        times.sort()
        p99 = times[int(len(times) * 0.99)]
        print(f"grew by {largest:.1f} MiB; of {len(times)} honest calls the p99 took {p99 * 1e3:.0f} ms")
        assert not faults
        assert p99 < HONEST_SECONDS + NOISE_SECONDS
        assert largest < GROWTH_MIB


@pytest.fixture(scope="module", params=["plaintext", "tls"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("target")
    settings, access = {}, Access(False)
    if request.param == "tls":
        authority = Authority(folder)
        pair = authority.signs("server")
        settings, access = {"tls_cert": pair.cert, "tls_key": pair.key}, Access(TLS(authority.ca))
    server = ServerProcess(f"sqlite:///{folder}/taskq.db", log_level="error", **settings)
    with server.log:
        server.start()
        target = Target(server, access)
        for _ in range(100):  # what the first calls cost is not the attackers' doing
            target.scheduler.enqueue(a_task())
        yield target
        target.channel.close()
        assert server.stop() == 0
        assert server.read_log() == "", "whoever connects must not be able to write into the log"


def test_streams_that_are_opened_and_reset_at_once(target: Target) -> None:
    opened, ends = 0, time.monotonic() + ATTACK_SECONDS
    with target.withstands():
        while time.monotonic() < ends:
            with connected(target.address, tls=target.is_tls) as (one,):
                is_open, first = sent(one, hostile.hello()), 1
                while is_open and time.monotonic() < ends:
                    ids = range(first, first + 400, 2)
                    opening = (hostile.frame(hostile.HEADERS, hostile.END_HEADERS, each, GET_TASK) for each in ids)
                    resets = (hostile.frame(hostile.RST_STREAM, 0, each, hostile.CANCEL) for each in ids)
                    is_open = sent(one, b"".join(a + b for a, b in zip(opening, resets, strict=True)))
                    opened, first = opened + len(ids), first + 400
    assert opened > 10_000, "too few to show anything"


def test_a_thousand_connections_that_do_nothing(target: Target) -> None:
    with ExitStack() as held, target.withstands():  # measured while they are open
        idle = held.enter_context(connected(target.address, 1_000, tls=target.is_tls))
        for one in idle:
            assert sent(one, hostile.hello())
        let_pass(ATTACK_SECONDS)


def test_handshakes_that_are_never_finished_are_hung_up_on(target: Target) -> None:
    with target.withstands(), connected(target.address, 1_000) as idle:
        for one in idle[::2]:  # the others do not even begin
            one.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" if target.is_tls else hostile.PREFACE[:9])
        assert hostile.hung_up(idle, seconds=15) == len(idle)


def test_giant_and_countless_metadata(target: Target) -> None:
    giant = hostile.in_frames(1, GET_TASK + hostile.header("x-giant", "x" * (1 << 20)))
    countless = hostile.in_frames(1, GET_TASK + b"".join(hostile.header(f"x-{i}", "y") for i in range(10_000)))
    ends = time.monotonic() + ATTACK_SECONDS
    with target.withstands():
        while time.monotonic() < ends:
            for headers in (giant, countless):
                with connected(target.address, tls=target.is_tls) as (one,):
                    sent(one, hostile.hello() + headers)
                    hostile.hung_up([one], 0.05)  # twenty a second: nothing bounds what a flood of them costs in CPU


def test_garbage_before_and_after_the_first_frame(target: Target) -> None:
    some, ends = random.Random(7), time.monotonic() + ATTACK_SECONDS
    with target.withstands():
        while time.monotonic() < ends:
            for opening, tls in ((b"", False), (b"", target.is_tls), (hostile.hello(), target.is_tls)):
                with connected(target.address, tls=tls) as (one,):
                    sent(one, opening + some.randbytes(some.randrange(1, 100_000)))


def test_ten_thousand_streams_of_one_client(target: Target) -> None:
    watch = hostile.call("SchedulerService/WatchTask")
    with target.withstands(), connected(target.address, tls=target.is_tls) as (one,):
        streams = (hostile.frame(hostile.HEADERS, hostile.END_HEADERS, each, watch) for each in range(1, 20_001, 2))
        sent(one, hostile.hello() + b"".join(streams))
        let_pass(ATTACK_SECONDS)


def test_one_that_asks_for_a_gigabyte_and_never_reads_is_given_up(target: Target) -> None:
    large = a_task()
    large.payload.CopyFrom(task_pb2.Payload(data=random.Random(7).randbytes(262_144)))
    target.scheduler.enqueue(large)
    question = hostile.message(scheduler_pb2.GetTaskRequest(task_id=large.task_id).SerializeToString())
    before = target.memory_mib()
    with target.withstands(), connected(target.address, tls=target.is_tls) as (one,):
        sent(one, hostile.hello(hostile.LARGEST_WINDOW), reading=False)
        for each in range(1, 8_001, 2):
            headers = hostile.frame(hostile.HEADERS, hostile.END_HEADERS, each, GET_TASK)
            asked = headers + hostile.frame(hostile.DATA, hostile.END_STREAM, each, question)
            if not sent(one, asked, reading=False):
                break
        let_pass(ATTACK_SECONDS)
        held = target.memory_mib() - before
        if not target.is_tls:
            assert held > 20, "nothing was kept for it: it was no attack"
            until(lambda: target.memory_mib() - before < held / 2, "the server gives it up", 45)


async def test_one_connection_more_than_there_may_be_is_hung_up_on_at_once(start_server: StartServer) -> None:
    server = await start_server(max_connections=3)

    def come_in() -> tuple[int, int]:
        with connected(server.address, 3) as let_in:
            for one in let_in:
                sent(one, hostile.hello())
            with connected(server.address, 2) as beyond:
                return hostile.hung_up(beyond, seconds=5), hostile.hung_up(let_in, seconds=0.2)

    assert await asyncio.to_thread(come_in) == (2, 0)


def test_there_are_no_more_connections_than_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, affordable in ((resource.RLIM_INFINITY, 1_000), (20_000, 1_000), (1_024, 768), (100, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert _affordable(1_000) == affordable
        assert _affordable(1_000, http=100) == (668 if affordable == 768 else affordable)
        assert _affordable(1_000, addresses=2) == (384 if affordable == 768 else affordable)
        assert _affordable(1_000, http=100, addresses=2) == (334 if affordable == 768 else affordable)


@pytest.mark.parametrize(("token_listen", "of_each"), [("", 100), ("127.0.0.1:0", 50)])
async def test_file_descriptors_are_shared_by_the_addresses_that_there_are(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token_listen: str, of_each: int
) -> None:
    authority = Authority(tmp_path)
    pair = authority.signs("server")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (OWN_FILES + 100, OWN_FILES + 100))
    with capture_logs() as logs:
        await start_server(
            tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.ca, tls_client_auth="require",
            token_listen=token_listen,
        )  # fmt: skip
    [told] = [line["connections"] for line in logs if line["event"].startswith("too few file descriptors")]
    assert told == of_each
