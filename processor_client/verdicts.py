"""What a handler raises to say how its attempt ends, when returning or failing does not say it."""

from client_core.times import Moment, Span


class Retry(Exception):
    """Fails this attempt and asks for another: `after` replaces the delay of the task's retry policy."""

    def __init__(self, reason: str = "", *, after: Span | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Fail(Exception):
    """Fails the task for good, however many attempts are left. `error_type` is what an administrator filters by."""

    def __init__(self, reason: str = "", *, error_type: str = "Fail") -> None:
        super().__init__(reason)
        self.reason = reason
        self.error_type = error_type


class Snooze(Exception):
    """Gives the task back unrun, due `until` then or after `delay`; the attempt is not counted against it."""

    def __init__(self, reason: str = "", *, until: Moment | None = None, delay: Span | None = None) -> None:
        if (until is None) == (delay is None):
            raise TypeError(f"Snooze has {'neither' if until is None else 'both'}; must have one of until and delay")
        super().__init__(reason)
        self.reason = reason
        self.until = until
        self.delay = delay


class TaskCancelled(BaseException):
    """Raised by `ctx.check_cancelled()` once the attempt is to stop. Not an `Exception`, so that a handler's own
    `except Exception` does not hold it up."""


class ProcessLost(Exception):
    """The child process of an `executor="process"` handler died while it ran."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        if self.exit_code is not None and self.exit_code < 0:
            return f"the handler's process was killed by signal {-self.exit_code}"
        return f"the handler's process ended with exit code {self.exit_code}"
