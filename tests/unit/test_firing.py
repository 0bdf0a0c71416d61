"""The loop that fires schedules goes on whatever happens."""

from __future__ import annotations

from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from taskq_server.clock import SECOND_US, Alarm, ManualClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.firing import Firer


class Fails:
    """A store in which nothing works."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def follow_zones(self, *_: Any) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [StorageUnavailable("gone"), TypeError("a fault of ours")])
async def test_whatever_goes_wrong_is_told_and_firing_comes_back_in_a_second(error: Exception) -> None:
    clock = ManualClock()
    firing = Firer(cast(Any, Fails(error)), cast(Any, None), clock, Alarm(clock), cast(Any, None))

    with capture_logs() as logged:
        again_us = await firing._tick_safely()

    assert again_us == clock.now_us() + SECOND_US
    assert [line["log_level"] for line in logged] == ["error"]
