"""Administration: the `taskq` command (`command.py`), and certificates for development (`certificates.py`)."""

__all__: list[str] = []
