"""Child processes for handlers that burn CPU or must be killed; spawned, because gRPC does not survive a fork."""

import multiprocessing
import pickle
import threading
from functools import partial

from processor_client.attempt import Attempt
from processor_client.child import Ended, Progressed, Saved, Work, serve
from processor_client.report import Reported
from processor_client.server_clock import ServerClock
from processor_client.threads import Threads
from processor_client.verdicts import ProcessLost
from taskq.v1.processor_service_pb2 import TaskResult
from taskq.v1.task_pb2 import Payload

_spawn = multiprocessing.get_context("spawn")
# Starting processes from several threads at once is not safe.
_starting = threading.Lock()


class Children:
    """As many as run at a time. One that has finished serves the next attempt; one that is killed is replaced."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._all: set[_Child] = set()
        self._idle: list[_Child] = []

    async def call(self, attempt: Attempt, clock: ServerClock) -> Payload | None:
        """Runs the handler in a child. Raises Reported unless it succeeds, ProcessLost when the child dies."""
        child = self._take()
        self._all.add(child)
        attempt.interrupt = child.kill
        reference = attempt.handler.reference
        assert reference is not None
        work = Work(reference, attempt.assigned.SerializeToString(), clock.ahead())
        try:
            result = await self._threads.call(partial(child.run, work, attempt))
        except BaseException:
            child.kill()
            self._all.discard(child)
            raise
        finally:
            attempt.interrupt = None
        if child.is_killed:
            self._all.discard(child)
        else:
            self._idle.append(child)
        if not result.HasField("succeeded"):
            raise Reported(result)
        return result.succeeded.result if result.succeeded.HasField("result") else None

    def close(self) -> None:
        """Kills all of them."""
        for child in self._all:
            child.kill()
        for child in self._all:
            child.reap()
        self._all.clear()
        self._idle.clear()

    def _take(self) -> "_Child":
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            self._all.discard(child)
        return _Child()


class _Child:
    """One process. `run` is called in a thread, `kill` on the loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self.is_killed = False

    def run(self, work: Work, attempt: Attempt) -> TaskResult:
        """Hands the work to the process, starting it if need be, and passes on what the handler says meanwhile."""
        try:
            self._start()
            self._pipe.send_bytes(pickle.dumps(work))
            while True:
                match pickle.loads(self._pipe.recv_bytes()):
                    case Progressed(fraction, message):
                        attempt.context.progress(fraction, message)
                    case Saved(checkpoint):
                        attempt.session.held.saved(attempt.context, Payload.FromString(checkpoint))
                    case Ended(result):
                        return TaskResult.FromString(result)
        except (EOFError, OSError):
            raise ProcessLost(self.reap()) from None

    def kill(self) -> None:
        """Ends the process now, whatever it does."""
        with self._lock:
            self.is_killed = True
            if self._process is not None and self._process.is_alive():
                self._process.kill()

    def is_alive(self) -> bool:
        """Whether it can take more work."""
        return self._process is not None and self._process.is_alive()

    def reap(self) -> int | None:
        """Waits for the end of a process that has been killed or has died; answers its exit code."""
        if self._process is None:
            return None
        self._process.join(1.0)
        self._pipe.close()
        return self._process.exitcode

    def _start(self) -> None:
        if self._process is not None:
            return
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(target=serve, args=(theirs,), name="taskq-handler")
        with _starting:
            process.start()
        theirs.close()
        self._pipe = ours
        with self._lock:
            self._process = process
            if self.is_killed:
                process.kill()
