"""Every setting of the server: its unit, its default, its rule. All faults are reported at once.

A flag wins over the environment, the environment over the default; `--lease-duration 10s` is
`TASKQ_LEASE_DURATION=10s`.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from taskq_server.core.rights import of_certificates

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ALSO_FILES = ("database_url", "cert_rights")
"""The settings that may stand in a file, whose name is in the variable that ends in _FILE."""
_SQLITE, _POSTGRES = "sqlite:///", ("postgresql://", "postgres://")
_PASSWORDS = re.compile(r"(://[^:/?#@]*:).*@|([?&](?:ssl)?password=)[^&]*", re.DOTALL)
_TOKENS = re.compile(r"(tq_[0-9a-f]{12})_\S+")
_HOST_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?", re.ASCII)
_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}){1,8}/?", re.ASCII)
HTTP_PATHS = frozenset(
    [
        "act",
        "api",
        "audit",
        "calendar",
        "capabilities",
        "failures",
        "livez",
        "metrics",
        "openapi.json",
        "operations",
        "processors",
        "readyz",
        "schedules",
        "signin",
        "signout",
        "static",
        "system",
        "tasks",
        "ui",
        "v1",
    ]
)
"""The first words of what HTTP answers, but for gRPC's own, which have dots."""
_ENVIRONMENT = re.compile(r"[^\x00-\x1f\x7f:]{1,40}")
COLOURS = ("grey", "blue", "green", "amber", "red")
"""What an environment may be marked with."""
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):(\d{1,5})", re.ASCII)


def span(text: object) -> float:
    """Seconds in `500ms`, `30s`, `10m`, `12h` or `7d`."""
    if isinstance(text, int | float):
        return float(text)
    if not (match := _SPAN.fullmatch(str(text).strip())):
        raise ValueError("must be a number and a unit, such as 500ms, 30s, 10m, 12h or 7d")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def _address(text: str) -> str:
    match = _HOST_AND_PORT.fullmatch(text)
    if not text.startswith("unix:") and (match is None or int(match[2]) > 65535):
        raise ValueError("must be host:port with a port from 0 to 65535, such as 127.0.0.1:50051")
    return text


def _http_address(text: str) -> str:
    match = _HOST_AND_PORT.fullmatch(text)
    if text and (match is None or int(match[2]) > 65535):
        raise ValueError("must be host:port with a port from 0 to 65535, such as 127.0.0.1:8080, or empty")
    return text


def _host_names(text: str) -> str:
    names = host_names(text)
    if wrong := [name for name in names if not _HOST_NAME.fullmatch(name)]:
        raise ValueError(f"must be names of hosts, without ports, separated by commas; {wrong[0]!r} is none")
    return ",".join(names)


def _base_path(text: str) -> str:
    if text.strip("/") and not _BASE_PATH.fullmatch(text):
        raise ValueError("must be a path of letters, digits and any of ._~- between slashes, such as /taskq; or empty")
    if text.strip("/").partition("/")[0] in HTTP_PATHS:
        raise ValueError("must not begin as a path of the server's own does")
    return text.rstrip("/")


def _environment(text: str) -> str:
    name, _, colour = text.partition(":")
    if text and not (_ENVIRONMENT.fullmatch(name) and (":" not in text or colour in COLOURS)):
        raise ValueError(
            f"must be 1 to 40 characters without a colon; then a colon and {', '.join(COLOURS)}, or nothing"
        )
    return text


def host_names(text: str) -> list[str]:
    """The names in `taskq_http_hosts`."""
    return [name.strip().lower().rstrip(".") for name in text.split(",") if name.strip()]


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or address.startswith("unix:")


def _stay_at_home(listen: str, others: ValidationInfo) -> None:
    if not _is_loopback(listen) and not others.data.get("insecure") and others.data.get("tls_cert", "") is None:
        raise ValueError(
            "must be a loopback address while there is no TLS: set TASKQ_TLS_CERT and TASKQ_TLS_KEY; "
            "TASKQ_INSECURE=true allows any"
        )


def _certificates(text: str) -> str:
    of_certificates(text)
    return text


def _path(text: str) -> str:
    if not text.strip():
        raise ValueError("must be the path of a file")
    return text


Span = Annotated[float, BeforeValidator(span)]
File = Annotated[str, AfterValidator(_path)]


def default_database_url() -> str:
    """A file in the user's state folder (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return f"sqlite:///{Path(state) / 'taskq' / 'taskq.db'}"


def database(url: str) -> str:
    """The URL, if it is one of a database that we know."""
    if (url.startswith(_SQLITE) and url != _SQLITE) or (url.startswith(_POSTGRES) and not url.endswith("://")):
        return url
    raise ValueError("must be sqlite:///path, with four slashes for an absolute path, or postgresql://host/name")


def shown(url: str) -> str:
    """The URL without its password, and whatever else without API tokens, to be printed or logged. It hides too much
    rather than too little: a password that is not percent-encoded may hold what looks like the end of it."""
    url = _TOKENS.sub(r"\1_***", url)
    return _PASSWORDS.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", url)


class Config(BaseModel):
    """The settings. Names, and those defaults that others rely on, are fixed by the contract."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    insecure: bool = Field(False, description="allow plaintext beyond loopback")
    tls_cert: File | None = Field(
        None, description="PEM file: the server's certificate, and those between it and its CA"
    )
    tls_key: File | None = Field(None, description="PEM file: the certificate's private key", validate_default=True)
    tls_client_ca: File | None = Field(None, description="PEM file: the CAs that sign the certificates of clients")
    tls_client_auth: Literal["none", "request", "require"] = Field(
        "none", description="require lets in no client without a certificate", validate_default=True
    )
    listen: Annotated[str, BeforeValidator(_address)] = Field(
        "127.0.0.1:50051",
        description="where gRPC listens; port 0 takes any free one, which is printed",
        validate_default=False,
    )
    auth: Literal["auto", "off", "required"] = Field(
        "auto",
        description="whether callers must show who they are; auto is off on loopback without rights of certificates "
        "and without TASKQ_TOKEN_LISTEN",
    )
    token_listen: Annotated[str, BeforeValidator(_http_address)] = Field(
        "",
        description="where gRPC listens, too, for clients that show a token and no certificate, while "
        "TASKQ_TLS_CLIENT_AUTH=require keeps them out of TASKQ_LISTEN; empty is off",
        validate_default=False,
    )
    cert_rights: Annotated[str, AfterValidator(_certificates)] = Field(
        "",
        description="rights of client certificates: SAN=RIGHT,RIGHT; SAN=RIGHT; also TASKQ_CERT_RIGHTS_FILE",
    )
    max_streams: int = Field(
        1_000, ge=1, le=100_000, description="of one caller on this server, where callers must show who they are"
    )
    http_listen: Annotated[str, BeforeValidator(_http_address)] = Field(
        "127.0.0.1:8080",
        description="where HTTP listens: the dashboard, calls as JSON, /openapi.json, /metrics, /livez, /readyz; "
        "port 0 takes any free one, which is printed; empty is off",
        validate_default=False,
    )
    http_hosts: Annotated[str, AfterValidator(_host_names)] = Field(
        "",
        description="names by which HTTP is asked for, besides IP addresses, localhost and the name in "
        "TASKQ_HTTP_LISTEN: NAME, NAME; where callers must show who they are, none is any",
    )
    http_base_path: Annotated[str, AfterValidator(_base_path)] = Field(
        "",
        description="below which all that HTTP answers is found from outside, such as /taskq: for a reverse proxy, "
        "which may take it off or leave it on",
    )
    dashboard_environment: Annotated[str, AfterValidator(_environment)] = Field(
        "",
        description="what the dashboard says this installation is: NAME or NAME:COLOUR, such as production:red; "
        "grey, blue, green, amber or red",
    )
    dashboard_read_only: bool = Field(False, description="nothing can be changed by the dashboard, whoever asks")
    database_url: Annotated[str, AfterValidator(database)] = Field(
        default_factory=default_database_url,
        description="sqlite:///path or postgresql://user:password@host:port/name; also TASKQ_DATABASE_URL_FILE",
    )
    lease_duration: Span = Field(
        30.0, ge=1, le=3600, description="a session without a heartbeat for this long ends, and its tasks go to others"
    )
    retention: Span = Field(
        7 * 86400.0, ge=0, le=3650 * 86400, description="how long finished tasks are kept, unless a task asks otherwise"
    )
    audit_retention: Span = Field(
        90 * 86400.0,
        ge=0,
        le=3650 * 86400,
        description="how long it is kept who has changed what, and what bulk operations have done",
    )
    max_connections: int = Field(
        10_000, ge=1, le=1_000_000, description="of clients at a time; a processor has three, a scheduler one or two"
    )
    max_payload_bytes: int = Field(262_144, ge=0, le=1_048_576, description="of payloads, results and checkpoints")
    max_lost_leases: int = Field(
        3, ge=1, le=1000, description="a task whose processor died this often is FAILED: it may be what kills them"
    )
    ping_interval: Span = Field(15.0, ge=0.1, le=60, description="how often a quiet stream carries a ping")
    stop_grace: Span = Field(20.0, ge=0, le=3600, description="how long calls may take to end when the server stops")
    pgbouncer: bool = Field(
        False, description="the database is reached by way of PgBouncer in transaction mode, or of its like"
    )
    network_file_system: bool = Field(
        False, description="allow a SQLite file on a network file system, where locks and fsync may not hold"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto is console on a terminal, else json"
    )

    @field_validator("tls_key")
    @classmethod
    def _key_and_certificate_come_together(cls, key: str | None, others: ValidationInfo) -> str | None:
        if "tls_cert" in others.data and (key is None) != (others.data["tls_cert"] is None):
            raise ValueError("must be set together with TASKQ_TLS_CERT")
        return key

    @field_validator("tls_client_ca")
    @classmethod
    def _clients_are_known_by_tls_alone(cls, client_ca: str | None, others: ValidationInfo) -> str | None:
        if client_ca is not None and others.data.get("tls_cert", "") is None:
            raise ValueError("must be set together with TASKQ_TLS_CERT")
        return client_ca

    @field_validator("tls_client_auth")
    @classmethod
    def _a_client_ca_is_not_in_vain(cls, client_auth: str, others: ValidationInfo) -> str:
        if client_auth == "request":
            raise ValueError(
                "must be none or require: gRPC for Python cannot ask for a certificate that a client may do without; "
                "with require, TASKQ_TOKEN_LISTEN is for clients that have none"
            )
        if "tls_client_ca" in others.data and (client_auth == "require") != bool(others.data["tls_client_ca"]):
            raise ValueError("must be require where TASKQ_TLS_CLIENT_CA is set, and none where it is not")
        return client_auth

    @field_validator("listen")
    @classmethod
    def _plaintext_stays_at_home(cls, listen: str, others: ValidationInfo) -> str:
        _stay_at_home(listen, others)
        return listen

    @field_validator("token_listen")
    @classmethod
    def _without_certificate_or_token_nobody_comes_in(cls, listen: str, others: ValidationInfo) -> str:
        if listen and others.data.get("tls_client_auth", "require") != "require":
            raise ValueError("must be empty unless TASKQ_TLS_CLIENT_AUTH is require: anybody may come to TASKQ_LISTEN")
        if listen and others.data.get("auth") == "off":
            raise ValueError("must be empty while TASKQ_AUTH is off, as certificates alone keep others out")
        return listen

    @field_validator("http_listen")
    @classmethod
    def _http_stays_at_home(cls, listen: str, others: ValidationInfo) -> str:
        if listen:
            _stay_at_home(listen, others)
        return listen

    def told(self) -> dict[str, str]:
        """Every setting by its variable, to be printed: without passwords."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values["database_url"] = shown(self.database_url)
        values["cert_rights"] = "set" if self.cert_rights else ""  # who may do what is not for all who may read
        return {_variable(name): _text(value) for name, value in values.items()}

    @property
    def environment(self) -> tuple[str, str]:
        """Its name and its colour; either may be empty."""
        name, _, colour = self.dashboard_environment.partition(":")
        return name, colour

    @property
    def on_loopback(self) -> bool:
        """Whether nobody from elsewhere can reach it."""
        return all(map(_is_loopback, filter(None, (self.listen, self.http_listen, self.token_listen))))

    @property
    def auth_required(self) -> bool:
        """Whether callers must show who they are."""
        asks = not self.on_loopback or bool(self.cert_rights) or bool(self.token_listen)
        return self.auth == "required" or (self.auth == "auto" and asks)

    @property
    def serves_calls_by_http(self) -> bool:
        """Not where a certificate is what lets callers in, and they are not asked who they are: HTTP asks for none."""
        return self.auth_required or self.tls_client_auth != "require"

    @property
    def is_exposed(self) -> bool:
        """Whether others than this machine may come in, in plaintext."""
        return self.tls_cert is None and not self.on_loopback

    @property
    def heartbeat_interval(self) -> float:
        return self.lease_duration / 4

    @property
    def rest_interval(self) -> float:
        """Of processors that hold nothing."""
        return self.lease_duration / 2


class WrongSettings(Exception):
    """Settings that break rules: every one with its name, the rule and the value."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("wrong settings:\n" + "\n".join(f"  {fault}" for fault in faults))


def load(flags: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Config:
    """The settings from `flags`, else from `environment`, else the defaults; WrongSettings names all that is wrong."""
    parser = Parser(prog="taskq server", description="Runs the taskq server until SIGTERM.", allow_abbrev=False)
    add_flags(parser, Config.model_fields)
    known, unknown = parser.parse_known_args(flags)
    faults = [f"{shown(flag).partition('=')[0]} is not a setting; --help lists them" for flag in unknown]
    return settle(vars(known), Config.model_fields, environment, faults)


def settle(
    flags: Mapping[str, object],
    names: Collection[str],
    environment: Mapping[str, str] = os.environ,
    faults: Sequence[str] = (),
) -> Config:
    """The settings of a program that has only those of `names`: it does not mind the rest of its environment."""
    faults = list(faults)
    given = {name: value for name in names if (value := flags.get(name)) is not None}
    for name in names:
        if name not in given and (value := environment.get(_variable(name))) is not None:
            given[name] = value
    for name in _ALSO_FILES:
        variable = _variable(name)
        if name not in names or flags.get(name) is not None or not (path := environment.get(f"{variable}_FILE")):
            continue
        if variable in environment:  # whoever sets a file does not expect that it is never read
            faults.append(f"{variable} and {variable}_FILE are both set; must be one of the two")
            continue
        try:
            given[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"{variable}_FILE must be a readable file; {type(error).__name__} at {path!r}")
    try:
        config = Config.model_validate(given)
    except ValidationError as error:
        for detail in error.errors():
            name = str(detail["loc"][0])
            faults.append(_fault(name, detail["msg"], given.get(name, detail["input"])))
    if faults:
        raise WrongSettings(faults)
    return config


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _variable(name: str) -> str:
    return f"TASKQ_{name.upper()}"


def _fault(name: str, rule: str, value: object) -> str:
    unit = " seconds" if rule.startswith("Input should") and _SPAN.fullmatch(str(value).strip()) else ""
    rule = rule.removeprefix("Value error, ").replace("Input should", "must") + unit
    shown = "(not shown)" if name == "database_url" else repr(value)
    return f"{_variable(name)} (--{name.replace('_', '-')}) {rule}; is {shown}"


class Parser(argparse.ArgumentParser):
    """Raises WrongSettings where argparse would end the process; a password never stands in it."""

    def error(self, message: str) -> NoReturn:
        raise WrongSettings([shown(message)])


def add_flags(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """Adds the flags of these settings."""
    for name in names:
        field = Config.model_fields[name]
        default = "a file in your state folder" if name == "database_url" else field.default
        default = "none" if default == "" else default
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            nargs="?" if field.annotation is bool else None,
            const="true" if field.annotation is bool else None,
            metavar="VALUE",
            help=f"{field.description} (default: {default}; {_variable(name)})",
        )
