"""The ids that a scheduler gives."""

from __future__ import annotations

import time
from uuid import UUID

from scheduler_client.ids import firing_task_id, new_task_id


def test_ids_are_version_7_and_sort_as_they_were_made() -> None:
    ids = [new_task_id() for _ in range(2_000)]
    assert len(set(ids)) == 2_000
    assert all(UUID(task_id).version == 7 for task_id in ids)
    assert [task_id[:13] for task_id in ids] == sorted(task_id[:13] for task_id in ids)
    assert abs(int(ids[0].replace("-", "")[:12], 16) / 1_000 - time.time()) < 10


def test_a_firing_has_the_same_id_everywhere_and_no_other_has_it() -> None:
    assert firing_task_id("main", "soup", 60_000_000) == firing_task_id("main", "soup", 60_000_000)
    others = {
        firing_task_id(*parts)
        for parts in [("main", "soup", 1), ("main", "soup", 2), ("main", "stew", 1), ("b", "soup", 1)]
    }
    assert len(others) == 4
    identity = UUID(next(iter(others)))
    assert identity.version == 8
    assert identity.variant == "specified in RFC 4122"
