"""Certificates are exchanged while the server is under load: no call fails, and no stream breaks."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from pathlib import Path

import pytest

from client_core.access import TLS, Access
from client_core.channel import open_channel
from scheduler_client import HandshakeFailed, Scheduler
from tests.conftest import StartServer
from tests.rpc.support import RawProcessor, RawScheduler, a_task
from tests.support.authority import HOUR, Authority
from tests.support.waiting import until_async

ROTATIONS = 3


def shown_by(address: str, tls: TLS) -> bytes:
    """The fingerprint of the certificate that a new connection is shown."""
    host, _, port = address.rpartition(":")
    context = tls.context()
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port)), 5) as raw, context.wrap_socket(raw, server_hostname=host) as door:
        return hashlib.sha256(door.getpeercert(binary_form=True) or b"").digest()


class Load:
    """Calls without end, half of them on connections of their own; every one must be answered."""

    def __init__(self, address: str, access: Access) -> None:
        self._address = address
        self._access = access
        self.calls = 0

    async def run(self) -> None:
        async with open_channel(self._address, access=self._access) as kept:
            while True:
                async with open_channel(self._address, access=self._access) as fresh:
                    for channel in (kept, fresh):
                        await RawScheduler(channel).enqueue_all(a_task())
                        self.calls += 1

    async def goes_on(self) -> None:
        enough = self.calls + 20
        await until_async(lambda: self.calls >= enough, "calls are answered")


async def test_a_rotation_under_load_fails_no_call_and_breaks_no_stream(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pair = authority.signs("server")
    server = await start_server(
        tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.ca, tls_client_auth="require"
    )
    mine = authority.signs("mine", uri="taskq:admin/dev")
    tls = TLS(authority.ca, mine.cert, mine.key)

    # given a processor with an open stream, and load
    processor = RawProcessor(server.address, channel=open_channel(server.address, access=Access(tls)))
    await processor.register("oven", ["kitchen"], 10, {})
    await processor.open()
    load = Load(server.address, Access(tls))
    loading = [asyncio.create_task(load.run()) for _ in range(3)]
    assert await asyncio.to_thread(shown_by, server.address, tls) == pair.fingerprint

    for turn in range(ROTATIONS):
        await load.goes_on()
        new = authority.signs(f"new-{turn}", ends_in=(turn + 2) * HOUR)
        await asyncio.to_thread(new.put_in_place_of, pair)
        assert await asyncio.to_thread(shown_by, server.address, tls) == new.fingerprint
        await load.goes_on()

    # and a file that cannot be used leaves the one before it in use
    good = pair.fingerprint
    await asyncio.to_thread(Path(pair.key).write_text, "half a ke")
    await load.goes_on()
    assert await asyncio.to_thread(shown_by, server.address, tls) == good
    await until_async(lambda: server.certificates and server.certificates.fault, "the fault is found", 5)

    for each in loading:
        assert not each.done(), each.exception()
        each.cancel()
    await asyncio.gather(*loading, return_exceptions=True)

    # then the stream of before still brings tasks
    async with open_channel(server.address, access=Access(tls)) as channel:
        task_id = await RawScheduler(channel).enqueue("kitchen")
    assert (await processor.take_one()).task_id == task_id
    await processor.disconnect()


async def test_a_scheduler_whose_own_certificate_was_renewed_uses_the_new_one(
    start_server: StartServer, tmp_path: Path
) -> None:
    # given a client that is not let in with the certificate it began with
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    pair = authority.signs("server")
    server = await start_server(
        tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.ca, tls_client_auth="require"
    )
    mine = stranger.signs("mine")
    async with Scheduler(server.address, tls=TLS(authority.ca, mine.cert, mine.key), timeout=20) as scheduler:
        with pytest.raises(HandshakeFailed):
            await scheduler.enqueue("kitchen")

        # when its files are exchanged
        authority.signs("renewed").put_in_place_of(mine)

        # then it comes in, though gRPC would go on with the old ones
        assert await scheduler.enqueue("kitchen")
