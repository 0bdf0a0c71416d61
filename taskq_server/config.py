"""Every setting of the server: its unit, its default, its rule. `values` says how one is written, `settings` where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from taskq_server import values

Span = Annotated[float, BeforeValidator(values.span)]
File = Annotated[str, AfterValidator(values.file_path)]


def _stay_at_home(listen: str, others: ValidationInfo) -> None:
    if not values.is_loopback(listen) and not others.data.get("insecure") and others.data.get("tls_cert", "") is None:
        raise ValueError(
            "must be a loopback address while there is no TLS: set TASKQ_TLS_CERT and TASKQ_TLS_KEY; "
            "TASKQ_INSECURE=true allows any"
        )


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
    listen: Annotated[str, BeforeValidator(values.address)] = Field(
        "127.0.0.1:50051",
        description="where gRPC listens; port 0 takes any free one, which is printed",
        validate_default=False,
    )
    auth: Literal["auto", "off", "required"] = Field(
        "auto",
        description="whether callers must show who they are; auto is off on loopback without rights of certificates, "
        "TASKQ_TOKEN_LISTEN and TASKQ_HTTP_BASE_PATH",
    )
    token_listen: Annotated[str, BeforeValidator(values.address_or_none)] = Field(
        "",
        description="where gRPC listens, too, for clients that show a token and no certificate, while "
        "TASKQ_TLS_CLIENT_AUTH=require keeps them out of TASKQ_LISTEN; empty is off",
        validate_default=False,
    )
    cert_rights: Annotated[str, AfterValidator(values.certificates)] = Field(
        "",
        description="rights of client certificates: SAN=RIGHT,RIGHT; SAN=RIGHT; also TASKQ_CERT_RIGHTS_FILE",
    )
    max_streams: int = Field(
        1_000, ge=1, le=100_000, description="of one caller on this server, where callers must show who they are"
    )
    http_listen: Annotated[str, BeforeValidator(values.address_or_none)] = Field(
        "127.0.0.1:8080",
        description="where HTTP listens: the dashboard, calls as JSON, /openapi.json, /metrics, /livez, /readyz; "
        "port 0 takes any free one, which is printed; empty is off",
        validate_default=False,
    )
    http_hosts: Annotated[str, AfterValidator(values.hosts)] = Field(
        "",
        description="names by which HTTP is asked for, besides IP addresses, localhost and the name in "
        "TASKQ_HTTP_LISTEN: NAME, NAME; where callers must show who they are, none is any",
    )
    http_base_path: Annotated[str, AfterValidator(values.base_path)] = Field(
        "",
        description="below which all that HTTP answers is found from outside, such as /taskq: for a reverse proxy, "
        "which may take it off or leave it on",
    )
    dashboard_environment: Annotated[str, AfterValidator(values.installation)] = Field(
        "",
        description="what the dashboard says this installation is: NAME or NAME:COLOUR, such as production:red; "
        "grey, blue, green, amber or red",
    )
    dashboard_read_only: bool = Field(False, description="nothing can be changed by the dashboard, whoever asks")
    database_url: Annotated[str, AfterValidator(values.database)] = Field(
        default_factory=values.default_database_url,
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
        told = {name: getattr(self, name) for name in type(self).model_fields}
        told["database_url"] = values.shown(self.database_url)
        told["cert_rights"] = "set" if self.cert_rights else ""  # who may do what is not for all who may read
        return {variable(name): _text(value) for name, value in told.items()}

    @property
    def installation(self) -> tuple[str, str]:
        """Its name and its colour; either may be empty."""
        name, _, colour = self.dashboard_environment.partition(":")
        return name, colour

    @property
    def on_loopback(self) -> bool:
        """Whether nobody from elsewhere can reach it."""
        return all(map(values.is_loopback, filter(None, (self.listen, self.http_listen, self.token_listen))))

    @property
    def auth_required(self) -> bool:
        """Whether callers must show who they are."""
        lets_others_in = not self.on_loopback or bool(self.http_base_path)  # which a proxy has, and is there for them
        asks = lets_others_in or bool(self.cert_rights) or bool(self.token_listen)
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
        """Of processors that hold nothing: with a tenth more it comes before a heartbeat counts as late."""
        return self.lease_duration * 0.6


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"TASKQ_{name.upper()}"
