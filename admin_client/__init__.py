"""Administration: the `taskq` command (`command.py`), certificates for development (`certificates.py`), and whether a
server serves (`health.py`)."""

__all__: list[str] = []
