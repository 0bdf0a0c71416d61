"""Disks that fail, fill up or are slow: what was answered is safe, what was not is not there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from client_core.errors import NotFound, ResourceExhausted, from_rpc_error
from taskq.v1.scheduler_service_pb2 import ENQUEUE_OUTCOME_CREATED, NewTask
from tests.e2e.conftest import StartWorld
from tests.support import strace, truth
from tests.support.process import ServerProcess
from tests.support.raw import RawScheduler, a_task, connected
from tests.support.waiting import until

STORAGE_FAILED = 74
EXIT_SECONDS = 2
NOISE_SECONDS = 3
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""


@pytest.mark.parametrize("healthy_syncs", [15, 22, 41])
def test_after_a_failed_fsync_nothing_more_is_answered_and_the_server_ends(
    start_world: StartWorld, healthy_syncs: int
) -> None:
    # given a disk whose fsyncs fail from some moment on; opening the database takes a dozen
    world = start_world(trace="fdatasync", inject=[f"fdatasync:error=EIO:when={healthy_syncs}+"])
    acknowledged: list[str] = []
    unanswered: list[str] = []
    with connected(world.server.address) as channel:
        scheduler = RawScheduler(channel)
        while len(unanswered) < 3:
            task = a_task()
            try:
                scheduler.enqueue(task, timeout=5)
            except grpc.RpcError:
                if not unanswered:
                    failed = time.monotonic()
                unanswered.append(task.task_id)
            else:
                assert not unanswered, "it answered after an fsync had failed"
                acknowledged.append(task.task_id)
            assert len(acknowledged) <= healthy_syncs

        assert world.server.wait(10) == STORAGE_FAILED, world.server.read_log()
        assert time.monotonic() - failed <= EXIT_SECONDS + NOISE_SECONDS

    assert acknowledged
    world.server.prefix = []  # the disk is replaced
    world.server.start()
    assert world.server.stop() == 0
    assert set(acknowledged) <= truth.read(world.database_url).keys()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"NOT TESTED, and it should be: no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def on_small_disk(small_disk: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(f"sqlite:///{small_disk}/taskq.db")
    server.start()
    yield server
    server.kill()
    server.log.close()


def test_a_full_disk_refuses_whole_calls_and_the_server_recovers_when_there_is_space_again(
    small_disk: Path, on_small_disk: ServerProcess
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(3 << 20))
    acknowledged: list[str] = []
    with connected(on_small_disk.address) as channel:
        scheduler = RawScheduler(channel)

        def enqueue_until_refused() -> tuple[grpc.RpcError, list[str]]:
            while True:
                tasks = [a_task(size=40_000) for _ in range(5)]
                try:
                    scheduler.enqueue(*tasks)
                except grpc.RpcError as error:
                    return error, [task.task_id for task in tasks]
                acknowledged.extend(task.task_id for task in tasks)

        for _ in range(3):
            refusal, refused = enqueue_until_refused()
            error = from_rpc_error(refusal)
            assert isinstance(error, ResourceExhausted), str(error)
            assert (error.reason, error.retry_delay) == ("STORAGE_FULL", 1.0)
            for task_id in refused:
                assert _is_missing(scheduler, task_id), "a part of a refused call is there"
        assert acknowledged, "something was stored before the disk was full"
        assert scheduler.get(acknowledged[0]).task_id == acknowledged[0], "what is there can still be read"

        filler.unlink()
        freed = time.monotonic()
        task = a_task(size=40_000)
        until(lambda: _accepted(scheduler, task), "it takes tasks again", 10)
        assert time.monotonic() - freed <= 5 + NOISE_SECONDS
        acknowledged.append(task.task_id)

    assert on_small_disk.stop() == 0, on_small_disk.read_log()
    stored = truth.read(f"sqlite:///{small_disk}/taskq.db")
    assert stored.keys() == set(acknowledged)


def _is_missing(scheduler: RawScheduler, task_id: str) -> bool:
    try:
        scheduler.get(task_id)
    except grpc.RpcError as error:
        return isinstance(from_rpc_error(error), NotFound)
    return False


def _accepted(scheduler: RawScheduler, task: NewTask) -> bool:
    try:
        return scheduler.enqueue(task) == [ENQUEUE_OUTCOME_CREATED]
    except grpc.RpcError:
        return False


def test_each_answer_leaves_only_after_the_fsync_that_makes_it_safe_has_returned(start_world: StartWorld) -> None:
    # given fsyncs that take long enough to see what does not wait for them
    calls = "fdatasync,sendmsg,sendto,write,writev"
    world = start_world(trace=calls, inject=["fdatasync:delay_exit=8000"], log_level="error")
    windows = []
    with connected(world.server.address) as channel:
        scheduler = RawScheduler(channel)
        for _ in range(200):
            asked = time.time()
            scheduler.enqueue(a_task())
            windows.append((asked, time.time()))
    assert world.server.stop() == 0

    calls_seen = strace.read(world.trace_file)
    syncs = [call for call in calls_seen if call.name == "fdatasync" and "-wal" in call.text and call.succeeded]
    sends = [call for call in calls_seen if call.name != "fdatasync" and "TCP" in call.text]
    too_early = 0
    for asked, answered in windows:
        safe = [call for call in syncs if asked <= call.began and call.began <= answered]
        sent = [call for call in sends if asked <= call.began <= answered]
        too_early += not any(sync.last_line < send.first_line for sync in safe for send in sent)
    assert too_early == 0, f"{too_early} of {len(windows)} answers did not wait for their fsync"
