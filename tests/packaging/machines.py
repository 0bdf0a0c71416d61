"""The files by which machines run taskq, read; and what of them can be asked of the programs themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from processor_client import Processor
from taskq_server.config import Config
from taskq_server.settings import load
from tests.support.process import ROOT

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
STACK = yaml.safe_load((DOCKER / "stack.yaml").read_text())
SERVICES: list[tuple[str, dict[str, Any]]] = [*COMPOSE["services"].items(), *STACK["services"].items()]
OF_CLIENTS = {"ADDRESS", "TLS_CA", "TLS_CERT", "TLS_KEY", "TLS_SERVER_NAME", "TOKEN", "TOKEN_FILE"}
"""The variables of a client, after TASKQ_."""
DRAIN_SECONDS = Processor()._drain_seconds


def name_of(value: object) -> str:
    """Of a parameter that is a name; of others there is none to show."""
    return value if isinstance(value, str) else ""


def client_variables(environment: dict[str, str]) -> set[str]:
    return {name.removeprefix("TASKQ_") for name in environment}


def server_settings(said: dict[str, str], folder: Path) -> Config:
    """What the server makes of it in its image; fails for a setting that there is not, or that would be refused."""
    environment = dict(re.findall(r"(TASKQ_[A-Z_]+)=(\S+)", DOCKERFILE)) | said
    for name in environment:
        assert name.removeprefix("TASKQ_").removesuffix("_FILE").lower() in Config.model_fields, name
    if "TASKQ_CERT_RIGHTS_FILE" in said:
        environment["TASKQ_CERT_RIGHTS_FILE"] = str(DOCKER / "kubernetes" / "rights")
    if "TASKQ_DATABASE_URL_FILE" not in said:
        return load([], environment)
    secret = folder / "database_url"
    secret.write_text("postgresql://taskq@db.example/taskq")
    settings = load([], environment | {"TASKQ_DATABASE_URL_FILE": str(secret)})
    assert settings.database_url == secret.read_text(), "nothing else is set that would win over it"
    return settings
