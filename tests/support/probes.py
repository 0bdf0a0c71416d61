"""Callers that ask a server again and again, each the same, and write down how long every answer took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """`began` is by `time.monotonic`; `code` is None for OK."""

    call: str
    began: float
    seconds: float
    code: grpc.StatusCode | None


class Probes:
    """What they have been answered so far."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._over = threading.Event()

    def since(self, moment: float, until: float = float("inf")) -> list[Answer]:
        """The answers to calls that began then."""
        return [answer for answer in list(self.answers) if moment <= answer.began < until]

    def served_since(self, moment: float, calls: set[str]) -> bool:
        """Whether each of these calls that began since then has succeeded at least once."""
        return calls <= {answer.call for answer in self.since(moment) if answer.code is None}

    def run(self, call: str, ask: Callable[[], object]) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            began, code = time.monotonic(), None
            try:
                ask()
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                code = error.code()
            self.answers.append(Answer(call, began, time.monotonic() - began, code))

    def stop(self) -> None:
        self._over.set()


@contextmanager
def probing(calls: Mapping[str, Callable[[], object]]) -> Iterator[Probes]:
    """Makes each of the calls in a thread of its own."""
    probes = Probes()
    threads = [threading.Thread(target=probes.run, args=call) for call in calls.items()]
    for thread in threads:
        thread.start()
    try:
        yield probes
    finally:
        probes.stop()
        for thread in threads:
            thread.join()
