"""The settings: where they come from, what they mean, and that all faults are told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskq_server.config import Config
from taskq_server.settings import WrongSettings, load, settle
from taskq_server.values import shown

FIXED_BY_CONTRACT = {
    "listen", "http_listen", "database_url", "lease_duration", "retention", "insecure",
    "tls_cert", "tls_key", "tls_client_ca", "tls_client_auth",
}  # fmt: skip


def faults_of(*flags: str, **environment: str) -> list[str]:
    with pytest.raises(WrongSettings) as caught:
        load(flags, environment)
    return caught.value.faults


def test_without_anything_the_defaults_of_the_contract_hold() -> None:
    config = load([], {})
    assert config.listen == "127.0.0.1:50051"
    assert config.lease_duration == 30
    assert config.heartbeat_interval == 7.5
    assert config.retention == 7 * 86_400
    assert config.insecure is False
    assert config.max_payload_bytes == 262_144
    assert set(Config.model_fields) >= FIXED_BY_CONTRACT


def test_the_default_database_is_a_file_in_the_users_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere/state")
    assert load([], {}).database_url == "sqlite:////somewhere/state/taskq/taskq.db"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert load([], {}).database_url == f"sqlite:///{Path.home()}/.local/state/taskq/taskq.db"


def test_a_flag_wins_over_the_environment_and_the_environment_over_the_default() -> None:
    environment = {"TASKQ_LEASE_DURATION": "20s", "TASKQ_RETENTION": "1d"}
    config = load(["--lease-duration", "10s"], environment)
    assert (config.lease_duration, config.retention, config.stop_grace) == (10, 86_400, 20)
    assert load(["--lease-duration=5s"], environment).lease_duration == 5


def test_every_setting_has_a_flag_and_a_variable_of_the_same_name() -> None:
    values = {
        "insecure": "true", "listen": "0.0.0.0:1", "http_listen": "0.0.0.0:8", "http_hosts": "a.lan", "database_url": "sqlite:///x.db",
        "http_base_path": "/taskq", "dashboard_environment": "test:red", "dashboard_read_only": "true",
        "lease_duration": "2s", "audit_retention": "9d",
        "retention": "3s", "max_payload_bytes": "4", "max_lost_leases": "5", "ping_interval": "6s",
        "max_connections": "9", "stop_grace": "7s", "network_file_system": "true", "log_level": "error",
        "log_format": "json", "pgbouncer": "true", "tls_cert": "c", "tls_key": "k", "tls_client_ca": "a",
        "tls_client_auth": "require", "auth": "required", "cert_rights": "spiffe://x/y=read", "max_streams": "8",
        "token_listen": "0.0.0.0:2",
    }  # fmt: skip
    assert set(values) == set(Config.model_fields)
    by_flag = load([f"--{name.replace('_', '-')}={value}" for name, value in values.items()], {})
    by_variable = load([], {f"TASKQ_{name.upper()}": value for name, value in values.items()})
    assert by_flag == by_variable
    assert by_flag.stop_grace == 7 and by_flag.listen == "0.0.0.0:1" and by_flag.network_file_system is True


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1500ms", 1.5), ("30s", 30), ("10m", 600), ("1h", 3600), ("0.5h", 1800), (" 30s ", 30), ("1.5s", 1.5)],
)
def test_a_span_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert load([], {"TASKQ_LEASE_DURATION": text}).lease_duration == seconds
    assert load([], {"TASKQ_RETENTION": "7d"}).retention == 7 * 86_400


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-1s", "1e3s", "1 s", "1w", "30S", "1h30m", "٣s", "nan", "inf", "0x1s"]
)
def test_what_is_no_span_is_refused(text: str) -> None:
    (fault,) = faults_of(TASKQ_LEASE_DURATION=text)
    assert fault == (
        "TASKQ_LEASE_DURATION (--lease-duration) must be a number and a unit, such as 500ms, 30s, 10m, 12h or 7d; "
        f"is {text!r}"
    )


@pytest.mark.parametrize(
    ("name", "fits", "breaks"),
    [
        ("lease_duration", ["1s", "1h"], ["999ms", "3601s", "9" * 400 + "s"]),
        ("retention", ["0s", "3650d"], ["3651d"]),
        ("audit_retention", ["0s", "3650d"], ["3651d"]),
        ("max_connections", ["1", "1000000"], ["0", "1000001"]),
        ("max_payload_bytes", ["0", "1048576"], ["-1", "1048577", "1.5", "many", ""]),
        ("max_lost_leases", ["1", "1000"], ["0", "1001"]),
        ("ping_interval", ["100ms", "60s"], ["99ms", "61s"]),
        ("stop_grace", ["0s", "1h"], ["3601s"]),
        ("insecure", ["true", "false", "1", "0"], ["maybe", ""]),
        ("log_level", ["debug", "error"], ["loud", ""]),
        ("log_format", ["auto", "json", "console"], ["xml"]),
        ("database_url", ["sqlite:///x.db", "sqlite:////x.db", "postgresql://u:p@h:5/d?x=y", "postgres:///d?host=/r"], [
            "", "sqlite:///", "sqlite:x", "mysql://x", "x.db", "postgres://", "postgresql:d", "postgresql+asyncpg://h/d",
        ]),
        ("http_listen", ["", "127.0.0.1:0", "[::1]:1", "localhost:8080"], [
            "127.0.0.1", ":8080", "127.0.0.1:65536", "unix:/tmp/s", "0.0.0.0:8080", "localhost.evil.example:1",
        ]),
        ("listen", ["127.0.0.1:0", "127.9.9.9:65535", "[::1]:1", "localhost:50051", "unix:/tmp/s"], [
            "", "127.0.0.1", "127.0.0.1:", ":50051", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:x", "127.0.0.1:٣",
            "::1:50051", "[::1]", "0.0.0.0:50051", "[::]:50051", "example.com:1", "127.evil.example:1",
            "localhost.evil.example:1",
        ]),
    ],
)  # fmt: skip
def test_each_setting_has_bounds_and_its_fault_names_it(name: str, fits: list[str], breaks: list[str]) -> None:
    for value in fits:
        load([], {f"TASKQ_{name.upper()}": value})
    for value in breaks:
        (fault,) = faults_of(**{f"TASKQ_{name.upper()}": value})
        assert fault.startswith(f"TASKQ_{name.upper()} (--{name.replace('_', '-')}) must "), fault
        shown = "(not shown)" if name == "database_url" else repr(value)
        assert fault.endswith(f"; is {shown}")


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "example.com:1"])
def test_http_beyond_loopback_must_be_asked_for_too(listen: str) -> None:
    (fault,) = faults_of("--http-listen", listen)
    assert "TASKQ_INSECURE=true allows any" in fault
    assert load(["--http-listen", listen, "--insecure"], {}).http_listen == listen
    assert load(["--http-listen="], {}).http_listen == ""


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "example.com:1"])
def test_plaintext_beyond_loopback_must_be_asked_for(listen: str) -> None:
    (fault,) = faults_of("--listen", listen)
    assert "TASKQ_TLS_CERT" in fault and "TASKQ_INSECURE=true allows any" in fault
    assert load(["--listen", listen, "--insecure"], {}).listen == listen


def test_with_a_certificate_any_address_may_be_listened_on() -> None:
    config = load(["--listen=0.0.0.0:1"], {"TASKQ_TLS_CERT": "c.pem", "TASKQ_TLS_KEY": "c.key"})
    assert (config.tls_cert, config.tls_key, config.tls_client_auth) == ("c.pem", "c.key", "none")
    assert not config.is_exposed
    assert not load([], {}).is_exposed
    assert load(["--listen=0.0.0.0:1", "--insecure"], {}).is_exposed


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"CERT": "c"}, "TASKQ_TLS_KEY (--tls-key) must be set together with TASKQ_TLS_CERT; is None"),
        ({"KEY": "k"}, "TASKQ_TLS_KEY (--tls-key) must be set together with TASKQ_TLS_CERT; is 'k'"),
        ({"CLIENT_CA": "a", "CLIENT_AUTH": "require"}, "TASKQ_TLS_CLIENT_CA (--tls-client-ca) must be set together"),
        ({"CERT": " ", "KEY": "k"}, "TASKQ_TLS_CERT (--tls-cert) must be the path of a file; is ' '"),
        # a client CA that nobody is held against would be a door that only looks locked
        ({"CERT": "c", "KEY": "k", "CLIENT_CA": "a"}, "TASKQ_TLS_CLIENT_AUTH (--tls-client-auth) must be require"),
        ({"CERT": "c", "KEY": "k", "CLIENT_AUTH": "require"}, "TASKQ_TLS_CLIENT_AUTH (--tls-client-auth) must be "),
        ({"CERT": "c", "KEY": "k", "CLIENT_CA": "a", "CLIENT_AUTH": "request"},
         "TASKQ_TLS_CLIENT_AUTH (--tls-client-auth) must be none or require: gRPC for Python cannot ask for a "
         "certificate that a client may do without; with require, TASKQ_TOKEN_LISTEN is for clients that have none"),
        ({"CLIENT_AUTH": "perhaps"}, "TASKQ_TLS_CLIENT_AUTH (--tls-client-auth) must be 'none', 're"),
    ],
)  # fmt: skip
def test_settings_of_tls_that_do_not_go_together_are_one_fault_that_names_its_setting(
    settings: dict[str, str], fault: str
) -> None:
    (told,) = faults_of(**{f"TASKQ_TLS_{name}": value for name, value in settings.items()})
    assert told.startswith(fault)


MUTUAL = {"TLS_CERT": "c", "TLS_KEY": "k", "TLS_CLIENT_CA": "a", "TLS_CLIENT_AUTH": "require"}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "must be empty unless TASKQ_TLS_CLIENT_AUTH is require"),
        ({"TLS_CERT": "c", "TLS_KEY": "k"}, "must be empty unless TASKQ_TLS_CLIENT_AUTH is require"),
        # whoever has neither a certificate nor a token would have every right
        ({**MUTUAL, "AUTH": "off"}, "must be empty while TASKQ_AUTH is off"),
        ({**MUTUAL, "TOKEN_LISTEN": "nowhere"}, "must be host:port with a port from 0 to 65535, or empty"),
    ],
)
def test_clients_without_certificates_have_a_door_of_their_own_only_where_they_need_it_and_show_a_token(
    settings: dict[str, str], fault: str
) -> None:
    given = {"TOKEN_LISTEN": "127.0.0.1:0", **settings}
    (told,) = faults_of(**{f"TASKQ_{name}": value for name, value in given.items()})
    assert told.startswith(f"TASKQ_TOKEN_LISTEN (--token-listen) {fault}")


def test_where_clients_without_certificates_have_a_door_callers_are_asked_who_they_are_also_at_home() -> None:
    mutual = {f"TASKQ_{name}": value for name, value in MUTUAL.items()}
    assert not load([], mutual).auth_required
    assert load(["--token-listen=127.0.0.1:0"], mutual).auth_required
    assert not load(["--token-listen=0.0.0.0:0"], mutual).on_loopback


def test_all_faults_are_told_at_once_whatever_they_are() -> None:
    faults = faults_of(
        "--lease-duration=1", "--no-such-flag=secret", "--max-lost-leases", "0", "stray",
        TASKQ_RETENTION="soon", TASKQ_LISTEN="nowhere", TASKQ_LOG_LEVEL="loud",
        TASKQ_DATABASE_URL_FILE="/no/such/file",
    )  # fmt: skip
    names = {fault.split()[0] for fault in faults}
    assert names == {
        "TASKQ_LEASE_DURATION", "TASKQ_MAX_LOST_LEASES", "TASKQ_RETENTION", "TASKQ_LISTEN", "TASKQ_LOG_LEVEL",
        "TASKQ_DATABASE_URL_FILE", "--no-such-flag", "stray",
    }  # fmt: skip
    assert not any("secret" in fault for fault in faults)


def test_a_span_out_of_bounds_is_shown_as_it_was_written_with_its_bound_in_seconds() -> None:
    rule = "must be greater than or equal to 1 seconds; is '999ms'"
    assert faults_of("--lease-duration=999ms") == [f"TASKQ_LEASE_DURATION (--lease-duration) {rule}"]


def test_the_message_has_a_line_for_each_fault() -> None:
    with pytest.raises(WrongSettings) as caught:
        load(["--lease-duration=1", "--retention=2"], {})
    assert str(caught.value).splitlines()[0] == "wrong settings:"
    assert len(str(caught.value).splitlines()) == 3


def test_a_flag_without_its_value_and_a_shortened_flag_are_refused() -> None:
    assert "expected one argument" in faults_of("--listen")[0]
    assert faults_of("--lease=10s") == ["--lease is not a setting; --help lists them"]


def test_the_database_url_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("sqlite:///from-file.db\n")
    assert load([], {"TASKQ_DATABASE_URL_FILE": str(secret)}).database_url == "sqlite:///from-file.db"


@pytest.mark.parametrize("name", ["DATABASE_URL", "CERT_RIGHTS"])
@pytest.mark.parametrize("direct", ["sqlite:///direct.db", ""])
def test_a_setting_and_its_file_together_are_refused_as_neither_is_the_one_that_is_meant(
    tmp_path: Path, name: str, direct: str
) -> None:
    file = tmp_path / "value"
    file.write_text("sqlite:///from-file.db" if name == "DATABASE_URL" else "api.example=read")
    direct = direct if name == "DATABASE_URL" else direct and "api.example=admin"
    faults = faults_of(**{f"TASKQ_{name}": direct, f"TASKQ_{name}_FILE": str(file)})
    assert f"TASKQ_{name} and TASKQ_{name}_FILE are both set; must be one of the two" in faults


def test_a_flag_wins_over_a_file_and_over_both(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("sqlite:///from-file.db")
    environment = {"TASKQ_DATABASE_URL_FILE": str(tmp_path / "url")}
    for more in ({}, {"TASKQ_DATABASE_URL": "sqlite:///direct.db"}):
        assert load(["--database-url=sqlite:///flag.db"], environment | more).database_url == "sqlite:///flag.db"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"", b"oracle://scott:tiger@host"])
def test_a_file_that_cannot_be_read_or_holds_no_url_is_a_fault_that_shows_no_secret(
    tmp_path: Path, content: bytes | None
) -> None:
    secret = tmp_path / "url"
    if content is not None:
        secret.write_bytes(content)
    (fault,) = faults_of(TASKQ_DATABASE_URL_FILE=str(secret))
    assert fault.startswith("TASKQ_DATABASE_URL")
    assert "tiger" not in fault


def test_settings_that_are_others_are_left_alone() -> None:
    load([], {"TASKQ_ADDRESS": "x", "TASKQ_TOKEN": "secret", "HOME": "/"})


def test_help_names_every_setting_with_its_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(["--help"], {})
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, field in Config.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert f"TASKQ_{name.upper()}" in text
        assert field.description


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load([], {}).listen = "x"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////var/lib/a:b@c.db", "sqlite:////var/lib/a:b@c.db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        (
            "postgresql://ann:s3cret@one:1,two:2/db?sslmode=require",
            "postgresql://ann:***@one:1,two:2/db?sslmode=require",
        ),
        ("postgres://ann:s3cret/s3cret@s3cret#s3cret?@host/db", "postgres://ann:***@host/db"),
        ("postgres://:s3cret@/db?host=/run", "postgres://:***@/db?host=/run"),
        ("postgres://host/db?user=ann&password=s3cret&x=y", "postgres://host/db?user=ann&password=***&x=y"),
        ("postgres://host/db?sslpassword=s3cret", "postgres://host/db?sslpassword=***"),
        ("unrecognized arguments: postgres://ann:s3cret@h", "unrecognized arguments: postgres://ann:***@h"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_a_url_that_was_not_given_as_a_flag_is_not_repeated_with_its_password() -> None:
    assert faults_of("postgres://ann:s3cret@host/db") == [
        "postgres://ann:***@host/db is not a setting; --help lists them"
    ]


def test_a_program_with_few_settings_does_not_mind_the_others() -> None:
    environment = {"TASKQ_LISTEN": "nowhere", "TASKQ_LOG_LEVEL": "debug", "TASKQ_DATABASE_URL": "sqlite:///env.db"}
    config = settle({"database_url": "sqlite:///flag.db"}, {"database_url", "log_level"}, environment)
    assert (config.database_url, config.log_level) == ("sqlite:///flag.db", "debug")


@pytest.mark.parametrize(
    ("text", "path"),
    [("", ""), ("/", ""), ("/taskq", "/taskq"), ("/taskq/", "/taskq"), ("/ops/task.q_~-1", "/ops/task.q_~-1")],
)
def test_a_base_path_has_no_slash_at_its_end(text: str, path: str) -> None:
    assert load([], {"TASKQ_HTTP_BASE_PATH": text}).http_base_path == path


def test_whom_a_proxy_lets_in_is_asked_who_they_are_on_loopback_too() -> None:
    assert not load([], {}).auth_required
    assert load(["--http-base-path=/taskq"], {}).auth_required
    assert not load(["--http-base-path=/taskq", "--auth=off"], {}).auth_required
    assert not load(["--http-base-path=/"], {}).auth_required


@pytest.mark.parametrize(
    "text",
    [
        "taskq",
        "//taskq",
        "/a//b",
        "/..",
        "/a/../b",
        "/a b",
        "/a%20b",
        "/a?b",
        "/ä",
        "https://a.lan/taskq",
        "/v1",
        "/tasks/x",
    ],
)
def test_what_is_no_base_path_is_refused(text: str) -> None:
    (fault,) = faults_of(TASKQ_HTTP_BASE_PATH=text)
    assert fault.startswith("TASKQ_HTTP_BASE_PATH (--http-base-path) must ")


@pytest.mark.parametrize(
    ("text", "installation"),
    [("", ("", "")), ("production", ("production", "")), ("Kitchen 2:red", ("Kitchen 2", "red")), ("ä", ("ä", ""))],
)
def test_an_installation_is_a_name_and_perhaps_a_colour(text: str, installation: tuple[str, str]) -> None:
    assert load([], {"TASKQ_DASHBOARD_ENVIRONMENT": text}).installation == installation


@pytest.mark.parametrize("text", ["a:pink", ":red", "a:", "a:b:red", "x" * 41, "a\nb"])
def test_what_is_no_installation_is_refused(text: str) -> None:
    (fault,) = faults_of(TASKQ_DASHBOARD_ENVIRONMENT=text)
    assert fault.startswith("TASKQ_DASHBOARD_ENVIRONMENT (--dashboard-environment) must be 1 to 40 characters")
