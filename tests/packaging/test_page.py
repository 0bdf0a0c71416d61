"""docs/docker.md names what there is."""

from __future__ import annotations

import re

from tests.packaging.machines import COMPOSE
from tests.support.process import ROOT

PAGE = (ROOT / "docs" / "docker.md").read_text()


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(docker/[\w./@-]+)`", PAGE))
    assert len(named) >= 6
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_profile_and_service_that_the_page_names_is_there() -> None:
    assert set(re.findall(r"--profile (\w+)", PAGE)) == {"postgres", "observability"}
    assert set(re.findall(r"docker compose run --rm (\w+)", PAGE)) == {"operator"}
    assert set(re.findall(r"--scale ([\w-]+)=", PAGE)) <= set(COMPOSE["services"])
