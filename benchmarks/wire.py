"""How those who take part talk to each other: in plaintext, or by mutual TLS."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wire:
    """What stands in the environment of either side."""

    server: Mapping[str, str] = field(default_factory=dict)
    client: Mapping[str, str] = field(default_factory=dict)


PLAINTEXT = Wire()


@contextmanager
def mutual_tls() -> Iterator[Wire]:
    """By certificates of its own, made as `taskq certs init` makes them."""
    from admin_client import certificates  # an old commit that is compared with need not have it

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates.write(folder, certificates.make()[0])
        ca = str(folder / "ca.pem")
        server = {**_own(folder, "server"), "TASKQ_TLS_CLIENT_CA": ca, "TASKQ_TLS_CLIENT_AUTH": "require"}
        yield Wire(server, {**_own(folder, "processor"), "TASKQ_TLS_CA": ca})


def _own(folder: Path, role: str) -> dict[str, str]:
    return {"TASKQ_TLS_CERT": str(folder / f"{role}.pem"), "TASKQ_TLS_KEY": str(folder / f"{role}.key")}
