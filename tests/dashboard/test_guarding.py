"""Who is answered at all: which hosts, which sites, who is signed in; and what the browser is told about it."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from taskq_server.clock import pause
from taskq_server.http.dashboard import forms, signin
from taskq_server.http.server import STOP_SECONDS
from tests.dashboard.conftest import Site
from tests.rpc.callers import granted, revoke
from tests.rpc.support import soon

PAGES = ["/", "/tasks", "/tasks/new", "/failures", "/schedules", "/schedules/new", "/calendar", "/processors"]
PAGES += ["/capabilities", "/operations", "/audit", "/system", "/api", "/api/AdminService/ListCapabilities"]
ACTS = ["/act/cancel", "/act/pause-capability", "/act/prune", "/tasks/new", "/schedules/new", "/schedules/preview"]


async def test_every_page_is_answered_with_a_policy_that_lets_nothing_in(site: Site) -> None:
    for path in PAGES:
        page = await site.get(path)
        assert page.status == 200, path
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        assert " style=" not in page.text and "<script>" not in page.text and " onclick" not in page.text


async def test_a_host_that_somebody_else_may_have_made_point_here_is_not_answered(site: Site) -> None:
    port = site.server.http_address.rpartition(":")[2]
    assert (await site.get("/", host=f"evil.example:{port}")).status == 421
    assert (await site.get("/static/taskq.css", host="127.0.0.1")).status == 200
    for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "taskq.localhost"):
        assert (await site.get("/", host=host)).status == 200


async def test_a_change_that_another_site_asks_for_is_refused(site: Site) -> None:
    host = site.server.http_address
    for path, headers in itertools.product(
        ACTS,
        (
            {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
            {"sec-fetch-site": "same-site", "origin": f"http://{host}"},
            {"sec-fetch-site": "", "origin": "https://evil.example"},
            {"sec-fetch-site": "", "origin": "null"},
            {"sec-fetch-site": ""},  # no browser of today sends neither
        ),
    ):
        refused = await site.post(path, {"name": "cook"}, **headers)
        assert refused.status == 403, (path, headers)
    assert not (await site.admin.capabilities()).capabilities


async def test_a_form_is_not_taken_by_get_nor_as_something_else(site: Site) -> None:
    assert "Pause" in (await site.get("/act/pause-capability?name=cook&reason=x")).text
    refused = await site.post("/act/pause-capability", {"name": "cook"}, **{"content-type": "text/plain"})
    assert refused.status == 400
    assert not (await site.admin.capabilities()).capabilities


async def test_whoever_has_not_signed_in_is_shown_nothing_but_the_way_to_do_so(house: Site) -> None:
    for path in PAGES:
        page = await house.get(path)
        assert (page.status, page.headers["location"].partition("?")[0]) == (303, "/signin")
    assert (await house.get("/ui/events")).status == 401
    assert (await house.post("/act/prune")).status == 401
    assert (await house.get("/signin")).status == 200


async def signed_in(house: Site, *rights: str) -> str:
    token = await granted(house.server, "ana", *rights)
    answer = await house.post("/signin?to=/capabilities", {"token": token})
    assert (answer.status, answer.headers["location"]) == (303, "/capabilities")
    house.cookie = answer.cookies[0].partition(";")[0]
    return token


async def test_the_cookie_is_not_the_token_and_no_script_and_no_other_site_gets_it(house: Site) -> None:
    token = await granted(house.server, "ana", "read")
    [cookie] = (await house.post("/signin", {"token": token})).cookies
    assert token not in cookie and token[15:] not in cookie
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "secure" not in cookie.lower()  # it came by plaintext


async def test_the_cookie_is_for_tls_alone_where_the_browser_speaks_it_to_a_proxy(house: Site) -> None:
    token = await granted(house.server, "ana", "read")
    host = house.server.http_address
    for scheme, is_secure in (("https", True), ("http", False)):
        [cookie] = (await house.post("/signin", {"token": token}, origin=f"{scheme}://{host}")).cookies
        assert ("secure" in {part.strip().lower() for part in cookie.split(";")}) == is_secure


async def test_a_token_that_does_not_hold_signs_nobody_in(house: Site) -> None:
    for token in ("", "tq_nonsense", "ana"):
        answer = await house.post("/signin", {"token": token})
        assert (answer.status, answer.cookies) == (401, [])
    house.cookie = "taskq_session=guessed"
    assert (await house.get("/")).status == 303


async def test_signing_in_leads_to_no_other_host(house: Site) -> None:
    token = await granted(house.server, "ana", "read")
    for to in ("//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)"):
        assert (await house.post(f"/signin?to={to}", {"token": token})).headers["location"] == "/"


async def test_being_signed_in_ends_with_the_token(house: Site) -> None:
    token = await signed_in(house, "read")
    assert (await house.get("/capabilities")).status == 200
    await revoke(house.server, token)
    assert (await house.get("/capabilities")).status == 303


async def test_being_signed_in_ends_when_one_signs_out_and_after_half_a_day(house: Site) -> None:
    await signed_in(house, "read")
    cookie = house.cookie
    assert (await house.post("/signout")).headers["location"] == "/signin"
    assert (await house.get("/")).status == 303
    await signed_in(house, "read")
    assert house.cookie != cookie
    house.clock.advance(12 * 3600)
    assert (await house.get("/")).status == 303


async def test_signing_in_again_ends_what_was_before(house: Site) -> None:
    await signed_in(house, "read")
    before = house.cookie
    await signed_in(house, "read")
    assert (await house.get("/capabilities")).status == 200
    house.cookie = before
    assert (await house.get("/capabilities")).status == 303


async def test_whoever_signs_in_often_signs_out_themselves_and_nobody_else(house: Site) -> None:
    boss = (await house.post("/signin", {"token": await granted(house.server, "boss", "read")})).cookies[0]
    token = await granted(house.server, "ana", "read")
    anas = [(await house.post("/signin", {"token": token})).cookies[0] for _ in range(signin.MOST_EACH + 1)]
    for cookie, status in ((boss, 200), (anas[0], 303), (anas[1], 200), (anas[-1], 200)):
        house.cookie = cookie.partition(";")[0]
        assert (await house.get("/capabilities")).status == status


async def test_who_may_only_read_is_offered_no_change_and_cannot_make_one(house: Site) -> None:
    admin = await granted(house.server, "boss", "admin")
    house.cookie = ""
    boss = await house.post("/signin", {"token": admin})
    house.cookie = boss.cookies[0].partition(";")[0]
    assert "/act/pause-capability" in (await house.get("/capabilities")).text
    await house.post("/act/pause-capability", {"name": "cook", "reason": "hot"})
    await signed_in(house, "read")
    page = await house.get("/capabilities")
    assert "cook" in page.text and "/act/" not in page.text
    refused = await house.post("/act/resume-capability", {"name": "cook"})
    assert refused.status in (400, 403) and "admin" in refused.text
    assert "paused" in (await house.get("/capabilities")).text


async def test_who_may_only_enqueue_sees_no_page_that_needs_more(house: Site) -> None:
    await signed_in(house, "enqueue:cook")
    page = await house.get("/processors")
    assert page.status == 403 and "read" in page.text
    assert (await house.get("/schedules")).status == 200


async def test_no_file_but_those_of_the_pages_is_given_away(site: Site) -> None:
    for name in ("..%2Fguard.py", "../guard.py", "%2e%2e/calls.py", "htmx-LICENSE.txt", "nothing.js"):
        assert (await site.get(f"/static/{name}")).status == 404


async def test_whoever_is_told_of_changes_does_not_keep_the_server_from_stopping(site: Site) -> None:
    host, port = site.server.http_address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /ui/events HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    await soon(reader.readuntil(b"retry: 2000"))
    begun = asyncio.get_running_loop().time()
    await soon(site.server.stop())
    assert asyncio.get_running_loop().time() - begun < STOP_SECONDS  # nobody had to be waited for
    writer.close()


async def test_a_form_that_is_not_whole_in_time_is_given_up_whoever_sends_it(
    house: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("taskq_server.http.body.REQUEST_SECONDS", 0.2)
    await signed_in(house, "admin")
    host, port = house.server.http_address.split(":")

    async def drip(path: str) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nsec-fetch-site: same-origin\r\ncookie: {house.cookie}\r\n"
        kind = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 1000000\r\n\r\n"
        writer.write((head + kind).encode())
        answer = asyncio.ensure_future(reader.readuntil(b"\r\n"))
        while not answer.done():
            writer.write(b"x")
            await pause(0.01)
        writer.close()
        return await answer

    for path in ("/signin", "/tasks/new", "/act/prune"):
        assert (await soon(drip(path))).startswith(b"HTTP/1.1 408 "), path
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_form_that_is_too_large_is_not_read(house: Site) -> None:
    refused = await house.post("/signin", {"token": "x" * (forms.MOST_BYTES + 1)})
    assert refused.status == 413 and "1,048,576" in refused.text


async def test_whoever_leaves_amid_a_form_cannot_write_into_the_log(
    house: Site, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = house.server.http_address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /signin HTTP/1.1\r\nhost: {host}\r\nsec-fetch-site: same-origin\r\n"
    writer.write((head + "content-type: application/x-www-form-urlencoded\r\ncontent-length: 9\r\n\r\n").encode())
    await pause(0.1)  # until it is being read
    writer.close()
    await soon(reader.read())
    await soon(house.server.stop())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
