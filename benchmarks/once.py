"""One run of the whole path, as JSON: for `benchmarks/compare.py`, which starts it with the code of each commit.

python -m benchmarks.once sqlite 20000
"""

from __future__ import annotations

import json
import sys

import client_core
import processor_client
import scheduler_client
import taskq.v1
import taskq_server
from benchmarks import command, lifecycle
from benchmarks.database import ROOT

MEASURED = client_core, processor_client, scheduler_client, taskq_server, taskq.v1


def main() -> None:
    command.unwind_when_terminated()
    kind, tasks = sys.argv[1:]
    for package in MEASURED:
        if not str(package.__file__).startswith(str(ROOT)):
            raise SystemExit(f"{package.__name__} is that of {package.__file__}; must be that of {ROOT}")
    print(json.dumps(lifecycle.run_once(kind, int(tasks))))


if __name__ == "__main__":
    main()
