"""`taskq conformance`: does a processor keep what processors promise?"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # the scripts need gRPC, which no other command should wait for
    from admin_client.conformance.kit import Verdict
    from admin_client.conformance.promise import Promise

SOME_BROKEN = 1


@click.command("conformance")
@click.option("--command", "command_line", metavar="COMMAND", help="what starts the processor under test")
@click.option("--only", "names", metavar="NAME", multiple=True, help="this promise alone; may be repeated")
@click.option("--list", "is_list", is_flag=True, help="list the promises and run nothing")
@click.option("--json", "is_json", is_flag=True, help="print one JSON object")
@click.option("--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="promises at a time")
@click.option(
    "--patience", type=click.FloatRange(1), default=10.0, show_default=True, help="seconds for what it must do"
)
@click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="a folder for what the processor writes")
def conformance(
    command_line: str | None,
    names: tuple[str, ...],
    is_list: bool,
    is_json: bool,
    jobs: int,
    patience: float,
    logs: Path | None,
) -> None:
    """Drive a processor, in whatever language, through what processors promise, and say what holds.

    COMMAND is started once for each promise, without a shell, with TASKQ_ADDRESS (and sometimes TASKQ_TLS_CA and
    TASKQ_TOKEN) in its environment. It must register the tasks conformance.echo, conformance.sleep, conformance.fail
    and conformance.large, for at least 20 at a time, and drain when it gets SIGTERM; docs/clients.md describes them.

    The exit code is 0 when every promise holds, and 1 when one is broken.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # handshakes fail here on purpose
    promises = _chosen(names)
    if is_list:
        for promise in promises:
            click.echo(f"{promise.name:20} {promise.sentence}")
        return
    if not command_line or not (command := shlex.split(command_line)):
        raise click.UsageError("--command is missing; must start the processor under test")
    try:
        verdicts = asyncio.run(_run(command, promises, jobs, patience, logs, is_json=is_json))
    except OSError as error:
        raise click.BadParameter(f"{command[0]} cannot be run: {error.strerror}", param_hint="--command") from error
    if is_json:
        click.echo(json.dumps(_as_json(command, verdicts), ensure_ascii=False, indent=2))
    else:
        broken = sum(not each.holds for each in verdicts)
        click.echo(f"{len(verdicts) - broken} of {len(verdicts)} promises hold")
    if not all(each.holds for each in verdicts):
        sys.exit(SOME_BROKEN)


def _chosen(names: Sequence[str]) -> list[Promise]:
    from admin_client.conformance.promises import ALL

    known = {promise.name for promise in ALL}
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"no such promise: {', '.join(unknown)}; --list names them", param_hint="--only")
    return [promise for promise in ALL if not names or promise.name in names]


async def _run(
    command: Sequence[str],
    promises: Sequence[Promise],
    jobs: int,
    patience: float,
    logs: Path | None,
    *,
    is_json: bool,
) -> list[Verdict]:
    from admin_client.conformance import kit

    found = []
    async for verdict in kit.verdicts(command, promises, jobs=jobs, patience=patience, logs=logs):
        found.append(verdict)
        if not is_json:
            _show(verdict)
    return found


def _show(verdict: Verdict) -> None:
    word = click.style("holds ", fg="green") if verdict.holds else click.style("BROKEN", fg="red", bold=True)
    click.echo(f"{word}  {verdict.promise.name:20} {verdict.promise.sentence}")
    if not verdict.holds:
        click.echo(f"{'':29}{verdict.reason}")


def _as_json(command: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, object]:
    return {
        "command": list(command),
        "holds": all(each.holds for each in verdicts),
        "promises": [
            {
                "name": each.promise.name,
                "promise": each.promise.sentence,
                "holds": each.holds,
                "reason": each.reason,
                "seconds": round(each.seconds, 3),
            }
            for each in verdicts
        ],
    }
