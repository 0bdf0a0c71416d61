"""Where the `taskq` command begins: with a sentence, where what it needs is not installed."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    if importlib.util.find_spec("click") is None:
        print("taskq: the command line is not installed; pip install 'taskq[cli]'", file=sys.stderr)
        sys.exit(2)
    from admin_client.command import main as command

    command()


if __name__ == "__main__":
    main()
