"""A server that answers HTTP, too, and whose clock stands still."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartServer
from tests.rpc.world import World


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What is seen from outside is the same whatever the database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/taskq.db"
    return request.getfixturevalue("postgres_url")  # type: ignore[no-any-return]


@dataclass
class Page:
    """What HTTP has answered."""

    status: int
    content_type: str
    text: str


class Site(World):
    """A server with a manual clock that answers HTTP."""

    async def fetch(self, path: str, **headers: str) -> Page:
        return await asyncio.to_thread(fetch, f"http://{self.server.http_address}{path}", **headers)

    async def values(self) -> Values:
        """All that the metrics say now, what waits as the database has it now."""
        await self.server.gauges.tick()
        return Values((await self.fetch("/metrics")).text)


class Values:
    """What the metrics said."""

    def __init__(self, text: str) -> None:
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.samples[sample.name, frozenset(sample.labels.items())] = sample.value

    def of(self, metric: str, /, **labels: str) -> float:
        """0 for what was never counted."""
        return self.samples.get((metric, frozenset(labels.items())), 0.0)

    def labelled(self, metric: str, label: str) -> set[str]:
        """The values that a label has."""
        return {dict(labels)[label] for name, labels in self.samples if name == metric}


def fetch(url: str, method: str = "GET", **headers: str) -> Page:
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return Page(response.status, response.headers["content-type"], response.read().decode())
    except urllib.error.HTTPError as refused:
        with refused:
            return Page(refused.code, refused.headers["content-type"], refused.read().decode())


@pytest.fixture
async def site(start_server: StartServer) -> AsyncIterator[Site]:
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0")
    yield site
    await site.end()
