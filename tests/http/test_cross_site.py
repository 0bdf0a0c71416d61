"""What a page of another site can make its user's browser do: nothing."""

from __future__ import annotations

import pytest

from taskq_server.http.safety import Hosts
from taskq_server.settings import WrongSettings, load
from tests.conftest import StartServer
from tests.http.asking import ask
from tests.http.conftest import Site
from tests.rpc.callers import granted
from tests.support import truth

A_TASK = {"tasks": [{"name": "cook"}]}


@pytest.fixture
def database_url(tmp_path: object) -> str:
    """None of this reaches a database."""
    return f"sqlite:///{tmp_path}/taskq.db"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "https://evil.example:8080"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:1"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://evil.example", "sec_fetch_site": "same-origin"},
    ],
)
async def test_a_page_of_another_site_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    for path in ("/v1/tasks", "/taskq.v1.SchedulerService/Enqueue"):
        answered = await ask(site.server.http_address, "POST", path, A_TASK, **headers)
        assert (answered.status, answered.reason) == (403, "CROSS_SITE")
        assert answered.headers["access-control-allow-origin"] is None
    assert truth.count(site.server._config.database_url) == 0


async def test_a_page_of_the_servers_own_and_a_program_may(site: Site) -> None:
    address = site.server.http_address
    for headers in (
        {},
        {"origin": f"http://{address}"},
        {"origin": f"http://{address}".upper(), "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
    ):
        assert (await ask(address, "POST", "/v1/tasks", A_TASK, **headers)).status == 200


async def test_a_name_that_somebody_points_at_the_server_is_not_the_servers(site: Site) -> None:
    for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"):
        for path in ("/v1/serverInfo", "/metrics", "/openapi.json", "/v1/nothing"):
            answered = await ask(site.server.http_address, "GET", path, host=host)
            assert (answered.status, answered.reason) == (421, "UNKNOWN_HOST")
        assert (await ask(site.server.http_address, "GET", "/livez", host=host)).status == 200
    for host in ("localhost", "localhost:1", "LOCALHOST", "taskq.localhost", "10.0.0.1", "[::1]:8080", "127.1.2.3:1"):
        assert (await ask(site.server.http_address, "GET", "/v1/serverInfo", host=host)).status == 200


async def test_where_a_token_is_needed_any_name_will_do_unless_some_are_given(start_server: StartServer) -> None:
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0", auth="required")
    shown = {"authorization": f"Bearer {await granted(site.server, 'somebody', 'read')}"}

    async def status(host: str) -> int:
        return (await ask(site.server.http_address, "GET", "/v1/serverInfo", host=host, **shown)).status

    assert await status("tasks.example") == 200
    await site.restart(http_listen="127.0.0.1:0", auth="required", http_hosts="tasks.example, Queue.lan.")
    assert [await status(host) for host in ("tasks.example", "queue.lan:1", "other.example")] == [200, 200, 421]
    await site.end()


@pytest.mark.parametrize(
    "host", ["", ":8080", "evil@127.0.0.1", "127.0.0.1/x", "127.0.0.1:x", "[::1", "a b", "127.0.0.1?"]
)
def test_what_is_no_host_is_known_to_nobody(host: str) -> None:
    assert not Hosts("127.0.0.1:8080", "", any_name=False).know(host) or host == "127.0.0.1:x"
    assert not Hosts("127.0.0.1:8080", "", any_name=True).know("")


def test_the_name_at_which_it_listens_is_its_own() -> None:
    assert Hosts("tasks.lan:8080", "", any_name=False).know("tasks.lan:8080")
    assert not Hosts("0.0.0.0:8080", "", any_name=False).know("tasks.lan:8080")
    assert Hosts("0.0.0.0:8080", "tasks.lan", any_name=True).know("tasks.lan")
    assert not Hosts("0.0.0.0:8080", "tasks.lan", any_name=True).know("other.lan")


def test_names_of_hosts_are_checked_as_settings() -> None:
    assert load(["--http-hosts=A.example, b.lan."], {}).http_hosts == "a.example,b.lan"
    for wrong in ("http://a", "a:80", "a b", "*", "-"):
        with pytest.raises(WrongSettings, match="TASKQ_HTTP_HOSTS"):
            load([f"--http-hosts={wrong}"], {})


def test_where_only_a_certificate_lets_callers_in_http_answers_no_calls() -> None:
    mutual = ["--tls-cert=c", "--tls-key=k", "--tls-client-ca=a", "--tls-client-auth=require"]
    assert not load(mutual, {}).serves_calls_by_http
    assert load([*mutual, "--cert-rights=x=read"], {}).serves_calls_by_http
    assert load([], {}).serves_calls_by_http
