"""A promise: a sentence, and the script that shows whether it holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from admin_client.conformance.scene import Scene

Script = Callable[["Scene"], Awaitable[None]]


class Broken(Exception):
    """The promise does not hold; the text says what was seen and what must be."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What every processor must do. `settings` are those of the server that its script needs."""

    name: str
    sentence: str
    script: Script
    settings: dict[str, Any] = field(default_factory=dict)


class Chapter:
    """The promises about one thing, in the order in which they are written down."""

    def __init__(self) -> None:
        self.promises: list[Promise] = []

    def promise(self, sentence: str, **settings: Any) -> Callable[[Script], Script]:
        """Makes the script below it one of the promises, under the script's own name."""

        def add(script: Script) -> Script:
            self.promises.append(Promise(script.__name__.replace("_", "-"), sentence, script, settings))
            return script

        return add
