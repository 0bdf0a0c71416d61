"""What stands around all pages of a server, as its settings have it."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from taskq_server.config import Config


@dataclass(frozen=True, slots=True)
class Frame:
    """The same for everybody who looks."""

    instance: str
    """The machine."""
    installation: str = ""
    """What this installation is, for people; empty says nothing."""
    colour: str = ""
    """Of that: one of `values.COLOURS`; empty is none."""
    base_path: str = ""
    """Before every address; empty, or from its `/` on without one at the end."""
    is_read_only: bool = False
    heartbeat_seconds: float = 7.5
    retention_seconds: float = 604_800.0
    """How long finished tasks are kept that do not say it themselves."""

    @classmethod
    def of(cls, config: Config) -> Frame:
        return cls(
            platform.node() or "taskq",
            *config.installation,
            config.http_base_path,
            config.dashboard_read_only,
            config.heartbeat_interval,
            config.retention,
        )
