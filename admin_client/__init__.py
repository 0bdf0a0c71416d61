"""Administration: look at an installation, steer it, and the `taskq` command that does so from a terminal.

    from admin_client import AdminClient

    async with AdminClient("localhost:50051") as admin:
        async for page in admin.list_tasks("state:FAILED", limit=200):
            print([task.task_id for task in page.tasks])
        print((await admin.explain_task(task_id)).summary)

What a call answers is the contract's own message (protos/taskq/v1), what it raises is of `client_core.errors`.

The map:

client.py        AdminClient: a method for each call;      connection.py  how it is made;  rpcs.py  which one it is
start.py         where the `taskq` command begins;         command.py  its nouns;  commands/ one a file
verb.py          what all its verbs have in common;       values.py what stands in their flags and arguments
lists.py         what all lists have;                     drafts.py a task, recurrence.py a schedule, from flags
output.py        what goes to stdout;                     tables.py what of each thing;  words.py  times, spans, figures
fields.py        only what somebody wants to see of it;   as_yaml.py
profiles.py      servers by a name, in a file;            announcing.py  which it is, where that may surprise
errors.py        exit codes, and what is to be done;      grpcurl.py the same call for grpcurl
bulk.py          many tasks: asked for, followed          waiting.py  tasks that somebody waits for
top.py           the live view
running.py       programs of ours and of yours, as processes of their own
supervising.py   which run under this one;                reload.py anew when their files change
demo.py          what `taskq dev` runs when it is given nothing
certificates.py  certificates for development;        examining.py  of any, whether they are well
health.py        whether a server would take calls, for probes
conformance/     whether a processor, in any language, keeps its promises
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from admin_client.client import AdminClient

__all__ = ["AdminClient"]


def __getattr__(name: str) -> object:
    # gRPC is imported when it is needed: `taskq --help`, and completion at each press of a key, do not wait for it.
    if name == "AdminClient":
        from admin_client.client import AdminClient

        return AdminClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
