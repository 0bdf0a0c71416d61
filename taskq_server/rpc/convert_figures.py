"""Domain -> wire: figures, failures, and what has changed."""

from __future__ import annotations

from taskq.v1 import event_pb2, failure_group_pb2, stats_pb2
from taskq_server.clock import SECOND_US
from taskq_server.core.event import Event
from taskq_server.core.sums import Quantiles, Sums
from taskq_server.rpc.convert import duration, timestamp
from taskq_server.stats import Count, lateness, run_time
from taskq_server.store.verbs.failures import FailureGroup
from taskq_server.store.verbs.figures import Span
from taskq_server.task_id import to_text


def state_count(one: Count) -> stats_pb2.StateCount:
    return stats_pb2.StateCount(state=int(one.state), tasks=one.tasks, is_partial=one.is_partial)  # type: ignore[arg-type]


def bucket(span: Span, sums: Sums) -> stats_pb2.StatsBucket:
    return stats_pb2.StatsBucket(
        start_time=timestamp(span.start_us),
        name=span.name,
        enqueued=sums.enqueued,
        leased=sums.leased,
        succeeded=sums.succeeded,
        failed=sums.failed,
        cancelled=sums.cancelled,
        retried=sums.retried,
        lateness=_spread(lateness(sums)),
        run_time=_spread(run_time(sums)),
    )


def _spread(one: Quantiles) -> stats_pb2.Spread | None:
    if not one.many:
        return None
    p50, p95, p99, longest = (duration(round(seconds * SECOND_US)) for seconds in one[1:])
    return stats_pb2.Spread(count=one.many, p50=p50, p95=p95, p99=p99, longest=longest)


def failure_group(one: FailureGroup) -> failure_group_pb2.FailureGroup:
    message = failure_group_pb2.FailureGroup(
        fingerprint=one.fingerprint,
        name=one.name,
        error_type=one.error_type,
        pattern=one.pattern,
        last_message=one.last_message,
        top_frame=one.top_frame,
        failures=one.failures,
        first_time=timestamp(one.first_time_us),
        last_time=timestamp(one.last_time_us),
        last_task_id=to_text(one.last_task_id),
        failed_tasks=one.failed_tasks,
        processor_names=one.processor_names,
        build_ids=one.build_ids,
        resolve_time=None if one.resolve_time_us is None else timestamp(one.resolve_time_us),
        resolve_note=one.resolve_note,
    )
    for start_us, failures in one.trend:
        message.trend.add(start_time=timestamp(start_us), failures=failures)
    return message


def event(one: Event) -> event_pb2.Event:
    return event_pb2.Event(
        cursor=one.cursor if one.seq else "",
        event_time=timestamp(one.time_us),
        topic=int(one.hint.topic),  # type: ignore[arg-type]
        changes=one.hint.changes,
        ids=one.hint.ids,
    )
