"""What time it is on the server, because a processor's own clock may be wrong by hours."""

import time
from datetime import UTC, datetime, timedelta


class ServerClock:
    """Never ahead of the server: it counts on from the last time that the server told, which was then already past."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self._told = datetime.now(UTC) + ahead
        self._heard = time.monotonic()

    def told(self, server_time: datetime) -> None:
        """Takes note of what the server has just said."""
        self._told, self._heard = server_time, time.monotonic()

    def now(self) -> datetime:
        """The server's time, late by less than the last answer took to arrive."""
        return self._told + timedelta(seconds=time.monotonic() - self._heard)

    def ahead(self) -> timedelta:
        """By how much the server's clock is ahead of this machine's; negative when it is behind."""
        return self.now() - datetime.now(UTC)
