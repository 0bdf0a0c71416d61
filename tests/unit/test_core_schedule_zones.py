"""Time zones whose files are not as they should be."""

from __future__ import annotations

import pytest

from taskq_server.core.schedule import zone


def test_a_zone_whose_file_has_gone_under_a_running_server_is_no_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package was exchanged by an upgrade."""

    def gone(name: str) -> zone.Zone:
        raise FileNotFoundError(2, "No such file or directory", name)

    zone.zone_named.cache_clear()
    monkeypatch.setattr(zone, "Zone", gone)

    with pytest.raises(ValueError, match="must be a time zone that can be read; Pacific/Chatham cannot"):
        zone.zone_named("Pacific/Chatham")
