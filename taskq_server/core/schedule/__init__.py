"""When a schedule fires. Times are microseconds since 1970 UTC.

rule         what a user writes, and what is wrong with it; words: what it says, in words
zone         time zones, as stretches of one offset
cron         which wall times an expression means
sources      what gives a rule its nominal times: crons in their zones, intervals, dates
recurrence   a rule compiled for one schedule: the next firing, and those after it
policies     what becomes of firings that were missed, and of those whose like still runs
"""

from taskq_server.core.schedule.policies import (
    DEFAULT_CATCH_UP,
    DEFAULT_CATCH_UP_WINDOW_US,
    CatchingUp,
    CatchUp,
    Decision,
    Overlap,
    catch_up,
    decide,
)
from taskq_server.core.schedule.recurrence import Dst, Preview, Recurrence, faults
from taskq_server.core.schedule.rule import DstPolicy, Rule
from taskq_server.core.schedule.zone import tzdata_version

__all__ = [
    "DEFAULT_CATCH_UP",
    "DEFAULT_CATCH_UP_WINDOW_US",
    "CatchUp",
    "CatchingUp",
    "Decision",
    "Dst",
    "DstPolicy",
    "Overlap",
    "Preview",
    "Recurrence",
    "Rule",
    "catch_up",
    "decide",
    "faults",
    "tzdata_version",
]
