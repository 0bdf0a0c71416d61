"""Administration: the `taskq` command (`command.py`), certificates for development (`certificates.py`), and
what shows whether a processor in any language keeps its promises (`conformance/`)."""

__all__: list[str] = []
