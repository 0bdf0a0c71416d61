"""Where the `taskq` command begins: with a sentence, where what it needs is not installed."""

from __future__ import annotations

import importlib.util
import sys

OF_THE_SERVER = ("server", "db", "token", "health")
"""What runs with what the server needs, and brings: among it click, but not rich."""


def is_installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def has_server() -> bool:
    """The wheel always holds the package; what it needs comes with an extra."""
    return is_installed("taskq_server", "sqlalchemy")


def main() -> None:
    if not is_installed("click") or (sys.argv[1:2] and sys.argv[1] not in OF_THE_SERVER and not is_installed("rich")):
        print("taskq: the command line is not installed; pip install 'taskq[cli]'", file=sys.stderr)
        sys.exit(2)
    from admin_client.command import main as command

    command()


if __name__ == "__main__":
    main()
