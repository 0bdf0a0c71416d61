"""Several servers share a database, which is PostgreSQL."""

from __future__ import annotations

import pytest


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url
