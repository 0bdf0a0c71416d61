"""Administration: the `taskq` command (`command.py`)."""

__all__: list[str] = []
