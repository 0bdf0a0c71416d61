"""`python -m taskq_server`: settings in, a server until SIGTERM.

Exit codes: 0 stopped as asked; 2 wrong settings or certificates; 74 storage failed; 75 the database or the address is
in use; 78 the database must not be used.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys

from taskq_server import before_grpc, logs, notify  # noqa: F401 - before_grpc acts by being imported first
from taskq_server.config import Config
from taskq_server.core.errors import CannotListen, CertificateRefused, StoreRefused
from taskq_server.server import Server
from taskq_server.settings import WrongSettings, load

STORAGE_FAILED = 74


async def serve(config: Config) -> int:
    server = Server(config)

    def stop() -> None:
        if server.stopping.is_set():
            os._exit(130)  # asked twice: now
        notify.tell(notify.STOPPING)
        server.stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        address = await server.start()
    except (StoreRefused, CannotListen, CertificateRefused) as refused:
        print(f"taskq server: {refused}", file=sys.stderr)
        return refused.exit_code
    print(f"taskq server listens on {address}", flush=True)
    if server.token_address:
        print(f"taskq server takes tokens without certificates on {server.token_address}", flush=True)
    if server.http_address:
        scheme = "http" if config.tls_cert is None else "https"
        print(f"taskq server answers HTTP on {scheme}://{server.http_address}", flush=True)
    notify.tell(notify.READY)
    try:
        await server.run()
    except Exception:  # noqa: BLE001 - logged where it happened
        return STORAGE_FAILED
    return 0


def main() -> int:
    try:
        config = load(sys.argv[1:])
    except WrongSettings as wrong:
        print(f"taskq server: {wrong}", file=sys.stderr)
        return 2
    logs.configure(config)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is a file; 1,024 are soon gone
    # What is imported lives for ever, and what a batch of messages leaves is no cycle: look less often at what lives.
    # A statement that is put together leaves a thousand: 50,000 at once took 60 to 90 ms, for which everybody waited.
    gc.freeze()
    gc.set_threshold(5_000, 40, 100)
    return asyncio.run(serve(config))


if __name__ == "__main__":
    sys.exit(main())
