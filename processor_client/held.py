"""What this processor holds: the one thing that the loop, the handlers' threads and the heartbeat's thread share."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from processor_client.attempt import Attempt, AttemptKey
from processor_client.context import Context
from taskq.v1.processor_service_pb2 import InFlight
from taskq.v1.task_pb2 import Payload, Progress

# A heartbeat carries checkpoints up to this; the next one brings the others.
MAX_NEWS_BYTES = 768 * 1024


@dataclass(slots=True)
class News:
    """What handlers have said since the last heartbeat, the latest of each attempt."""

    progress: dict[AttemptKey, Progress] = field(default_factory=dict)
    checkpoints: dict[AttemptKey, Payload] = field(default_factory=dict)


class Held:
    """Every method may be called from any thread; each holds the lock for an instant and runs no user code in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[AttemptKey, Attempt] = {}
        self._news = News()
        # Checkpoints that a heartbeat under way carries.
        self._travelling: dict[AttemptKey, Payload] = {}
        self._wake: threading.Event | None = None
        self._wakes_on_first = False

    def __len__(self) -> int:
        return len(self._attempts)

    def __iter__(self) -> Iterator[Attempt]:
        with self._lock:
            return iter(list(self._attempts.values()))

    def __contains__(self, key: AttemptKey) -> bool:
        return key in self._attempts

    def get(self, key: AttemptKey) -> Attempt | None:
        """The attempt of that key, if it is held."""
        return self._attempts.get(key)

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Lists them in every heartbeat from now on."""
        with self._lock:
            for attempt in attempts:
                self._attempts[attempt.key] = attempt
            wakes, self._wakes_on_first = self._wakes_on_first, False
        if wakes and self._wake is not None:
            self._wake.set()

    def remove(self, keys: Iterable[AttemptKey]) -> None:
        """Lists them no more."""
        with self._lock:
            for key in keys:
                self._attempts.pop(key, None)
                self._news.progress.pop(key, None)
                self._news.checkpoints.pop(key, None)

    def wake_on_checkpoint(self, event: threading.Event) -> None:
        """Sets `event` whenever a checkpoint is saved, and when `wake_on_first` says so."""
        self._wake = event

    def wake_on_first(self) -> bool:
        """Lets the next attempt that is held wake, too. False when some are held already."""
        with self._lock:
            self._wakes_on_first = not self._attempts
            return self._wakes_on_first

    @property
    def has_checkpoints(self) -> bool:
        """Whether some wait for a heartbeat."""
        return bool(self._news.checkpoints)

    def progressed(self, context: Context, fraction: float, message: str) -> None:
        """Keeps it for the next heartbeat, in place of what was said before."""
        key = (context.task_id, context.attempt)
        with self._lock:
            if key in self._attempts:
                self._news.progress[key] = Progress(fraction=fraction, message=message)

    def saved(self, context: Context, checkpoint: Payload) -> None:
        """Keeps it for the next heartbeat, which comes early."""
        key = (context.task_id, context.attempt)
        with self._lock:
            if key not in self._attempts:
                return
            self._news.checkpoints[key] = checkpoint
        if self._wake is not None:
            self._wake.set()

    def has_unsent_checkpoint(self, key: AttemptKey) -> bool:
        """Whether the server does not know yet what was saved."""
        with self._lock:
            return key in self._news.checkpoints or key in self._travelling

    def take(self) -> tuple[list[InFlight], News]:
        """All that is held, with the news; hand these to `arrived` or `put_back`."""
        with self._lock:
            keys, progress = list(self._attempts), self._news.progress
            checkpoints = self._some_checkpoints()
            self._news.progress = {}
            self._travelling = checkpoints
        if not progress and not checkpoints:
            return [InFlight(task_id=task_id, attempt=attempt) for task_id, attempt in keys], News()
        in_flight = [
            InFlight(task_id=key[0], attempt=key[1], progress=progress.get(key), checkpoint=checkpoints.get(key))
            for key in keys
        ]
        return in_flight, News(progress, checkpoints)

    def arrived(self) -> bool:
        """The server has what was taken. Answers whether more is waiting."""
        with self._lock:
            self._travelling = {}
            return bool(self._news.checkpoints)

    def put_back(self, news: News) -> None:
        """The server may not have it: it travels again, unless something newer has been said."""
        with self._lock:
            self._travelling = {}
            for key in news.progress.keys() & self._attempts.keys():
                self._news.progress.setdefault(key, news.progress[key])
            for key in news.checkpoints.keys() & self._attempts.keys():
                self._news.checkpoints.setdefault(key, news.checkpoints[key])

    def _some_checkpoints(self) -> dict[AttemptKey, Payload]:
        taken: dict[AttemptKey, Payload] = {}
        size = 0
        for key in list(self._news.checkpoints):
            size += self._news.checkpoints[key].ByteSize()
            if taken and size > MAX_NEWS_BYTES:
                break
            taken[key] = self._news.checkpoints.pop(key)
        return taken
