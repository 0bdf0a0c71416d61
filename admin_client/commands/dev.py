"""`taskq dev`: all of it in one command."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from admin_client import profiles, running, start
from admin_client.errors import USAGE, Ended
from admin_client.supervising import Program, Stop, keep

DEMO = "admin_client.demo:processor"


@click.command()
@click.argument("app", metavar="[MODULE[:NAME]]", default=DEMO)
@click.option("--reload", is_flag=True, help="start the processor anew when a .py file below this folder changes")
@click.option("--listen", default="127.0.0.1:50051", help="where gRPC listens (127.0.0.1:50051)")
@click.option("--http-listen", default="127.0.0.1:8080", help="where HTTP listens (127.0.0.1:8080)")
@click.option(
    "--database", default=".taskq/dev.db", type=click.Path(dir_okay=False), help="the SQLite file (.taskq/dev.db)"
)
@click.option("--log-level", default="warning", help="of the server (warning)")
def dev(app: str, reload: bool, listen: str, http_listen: str, database: str, log_level: str) -> None:
    """Run a server with its pages, and a processor: the one at MODULE:NAME, else one that runs `demo.hello`.

    On this machine alone, in plaintext, with a SQLite file in this folder; TASKQ_* of the environment do not count.
    Until SIGTERM or Ctrl-C, which end both in order: exit code 0. A second one ends them now: 130.
    """
    if not start.has_server():
        raise Ended(USAGE, "the server is not installed", "pip install 'taskq[server]'")
    path = Path(database).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.name == ".taskq" and not (path.parent / ".gitignore").exists():
        (path.parent / ".gitignore").write_text("*\n")
    flags = [f"--listen={listen}", f"--http-listen={http_listen}", f"--database-url=sqlite:///{path}"]
    sys.exit(asyncio.run(_run(app, reload, [*flags, f"--log-level={log_level}"], bool(http_listen))))


async def _run(app: str, reload: bool, flags: list[str], has_http: bool) -> int:
    stop = Stop()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKQ_")}
    server = Program(running.command("server", *flags), environment, is_heard=True)
    process = await server.start()
    ends = asyncio.create_task(process.wait())
    hearing = asyncio.create_task(_addresses(process, has_http))
    await stop.until(hearing, ends)
    if not hearing.done() or not (addresses := hearing.result()):
        hearing.cancel()
        code = await stop.ending(server)
        return code or (process.returncode or 0 if not stop.asked.is_set() else 0)
    address = addresses[0]
    processor = Program(running.command("processor", app), {**environment, "TASKQ_ADDRESS": address})
    keeping = asyncio.create_task(keep(processor, Path.cwd() if reload else None))
    click.echo(_banner(app, addresses), err=True)
    asked = await stop.until(keeping, ends)
    code = 0
    if not asked:
        code = keeping.result() if keeping.done() else (process.returncode or 1)
    keeping.cancel()
    await asyncio.wait({keeping})
    return await stop.ending(processor, server) or code


async def _addresses(process: asyncio.subprocess.Process, has_http: bool) -> list[str]:
    """Where the server listens, as it says; none when it ends before."""
    assert process.stdout is not None
    found: list[str] = []
    while len(found) < 1 + has_http:
        line = (await process.stdout.readline()).decode()
        if not line:
            return []
        if "listens on" in line or "answers HTTP on" in line:
            found.append(line.split()[-1])
    return found


def _banner(app: str, addresses: list[str]) -> str:
    address = addresses[0]
    is_found = address == "127.0.0.1:50051" and not profiles.is_any_used(os.environ)
    where = "" if is_found else f" --address {address}"
    pages = f"  HTTP   {addresses[1]}\n" if len(addresses) > 1 else ""
    name, data = ("demo.hello", """ -d '{"name": "you"}'""") if app == DEMO else ("NAME", "")
    return (
        f"taskq dev\n  gRPC   {address}\n{pages}  runs   {'demo.hello' if app == DEMO else app}\n\nNext, elsewhere:\n"
        f"  taskq task enqueue {name}{data} --wait{where}\n"
        f"  taskq task list{where}\n"
        f"  taskq top{where}\n\nCtrl-C ends it."
    )
