"""`taskq token`: the API tokens of those who call, straight in the database, so that the first one needs no server.

A new token goes to stdout, once and alone: what is kept is a hash of it. All else goes to stderr. Exit codes: 0 done;
2 wrong usage; 65 no such token, or too many; 70 a fault of this program; 74 the database or its disk fails; 75 it is in
use or cannot be reached now; 78 it must not be used; 130 interrupted.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

from taskq_server import logs, values
from taskq_server.clock import SystemClock
from taskq_server.config import Config
from taskq_server.core import token as api_token
from taskq_server.core.errors import StoreRefused
from taskq_server.core.rights import RULE, Rights, principal
from taskq_server.database import INTERRUPTED, OF_ALL, OUR_FAULT, WRONG_USAGE, database_at, runner
from taskq_server.settings import Parser, WrongSettings, add_flags, settle
from taskq_server.store import migrate
from taskq_server.store.verbs import tokens
from taskq_server.store.verbs.tokens import NewToken, Revocation, Token

NO_SUCH_TOKEN = 65
LONGEST_EXPIRY_SECONDS = 3650 * 86_400.0


def create(options: argparse.Namespace, settings: Config) -> int:
    """Make a token and print it. It is shown this once, and cannot be shown again."""
    text = api_token.new()
    token_id, rights = api_token.id_of(text), tuple(options.right)
    assert token_id is not None
    expiry_us = None if options.expire_after is None else round(options.expire_after * 1_000_000)
    new = NewToken(token_id, api_token.hash_of(text), options.principal, rights, expiry_us, _user())
    database_at(settings.database_url, settings).change_tokens(new)
    if not any(one.token_id == token_id for one in _known(settings)):
        raise StoreRefused("the token was not kept", "look at the log of the server", NO_SUCH_TOKEN)
    print(text, flush=True)
    _say(f"{token_id} is {options.principal}'s, with the rights {', '.join(rights)}; it is not shown again")
    return 0


def list_(options: argparse.Namespace, settings: Config) -> int:
    """Print the tokens that may be used, one a line; never their secrets."""
    now_us = SystemClock().now_us()
    print(f"{'token':16}{'principal':25}{'created':21}{'expires':21}{'last used':21}{'':9}rights")
    for one in _known(settings):
        ended = one.ended(now_us)
        if options.all or not ended:
            times = one.create_time_us, one.expire_time_us, one.last_use_time_us
            shown = "".join(f"{_time(time_us):21}" for time_us in times)
            print(f"{one.token_id:16}{one.principal:24} {shown}{ended:9}{','.join(one.rights)}")
    return 0


def revoke(options: argparse.Namespace, settings: Config) -> int:
    """Let tokens not be used any more; streams that were opened with them end within seconds."""
    known = {one.token_id for one in _known(settings)}
    if missing := [token_id for token_id in options.token if token_id not in known]:
        raise StoreRefused(f"there is no token {', '.join(missing)}", "`taskq token list` lists them", NO_SUCH_TOKEN)
    database_at(settings.database_url, settings).change_tokens(Revocation(tuple(options.token), _user()))
    _say(f"revoked {', '.join(options.token)}")
    return 0


VERBS: dict[str, Callable[[argparse.Namespace, Config], int]] = {"create": create, "list": list_, "revoke": revoke}


def main(arguments: Sequence[str]) -> int:
    try:
        options = _parser().parse_args(arguments)
        settings = settle(vars(options), ["database_url", *OF_ALL], faults=_faults(options))
    except WrongSettings as wrong:
        _say(str(wrong))
        return WRONG_USAGE
    logs.configure(settings)
    try:
        return runner([settings.database_url])(partial(VERBS[options.verb], options, settings))
    except StoreRefused as refused:
        _say(str(refused))
        return refused.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - 1, which Python would exit with, has another meaning here
        traceback.print_exc()
        return OUR_FAULT


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="taskq token", description="Make, list and revoke API tokens.", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="create | list | revoke")
    for name, verb in VERBS.items():
        its = verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__, allow_abbrev=False)
        if name == "create":
            its.add_argument("principal", metavar="PRINCIPAL", help="who calls with it, in logs and of sessions")
            its.add_argument("--right", metavar="RIGHT", action="append", default=[], help=f"{RULE}; may be repeated")
            its.add_argument("--expire-after", metavar="SPAN", help="such as 90d; without it, only when it is revoked")
        elif name == "list":
            its.add_argument("--all", action="store_true", help="also those that may not be used any more")
        else:
            its.add_argument("token", metavar="TOKEN", nargs="+", help="the id of a token, such as tq_0123456789ab")
        add_flags(its, ["database_url", *OF_ALL])
    return parser


def _faults(options: argparse.Namespace) -> list[str]:
    """What is wrong with what is not a setting; a token that stands there by mistake is not repeated."""
    faults: list[str] = []
    if options.verb == "create":
        _check(faults, "PRINCIPAL", lambda: principal(options.principal))
        _check(faults, "--right", lambda: Rights.parse(options.right))
        if options.expire_after is not None:
            _check(faults, "--expire-after", lambda: _set_expiry(options))
    elif options.verb == "revoke" and not all(map(api_token.ID.fullmatch, options.token)):
        faults.append("TOKEN must be the id of a token, which is its first 15 characters: tq_ and 12 digits or a to f")
    return faults


def _check(faults: list[str], name: str, check: Callable[[], object]) -> None:
    try:
        check()
    except ValueError as rule:
        faults.append(f"{name} {rule}")


def _set_expiry(options: argparse.Namespace) -> None:
    options.expire_after = values.span(options.expire_after)
    if not 0 < options.expire_after <= LONGEST_EXPIRY_SECONDS:
        raise ValueError("must be more than nothing, and 3650d at most")


def _known(settings: Config) -> Iterable[Token]:
    """All that were ever made; none in a database that has no tables yet."""
    with database_at(settings.database_url, settings).looking() as connection:
        found = migrate.current(connection)
        if found is None:
            return []
        if not migrate.serves(connection, found):
            raise StoreRefused(f"the database has schema {found}, older than {migrate.HEAD}", "run `taskq db upgrade`")
        return tokens.every(connection)


def _user() -> str:
    """Who runs this, for the audit; empty where the operating system has no name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _time(time_us: int | None) -> str:
    return "-" if time_us is None else datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _say(what: str) -> None:
    print(f"taskq token: {what}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
