"""Settings from flags and the environment. All faults are reported at once.

A flag wins over the environment, the environment over the default; `--lease-duration 10s` is
`TASKQ_LEASE_DURATION=10s`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from taskq_server.config import Config, variable
from taskq_server.values import is_span, shown

_ALSO_FILES = ("database_url", "cert_rights")
"""The settings that may stand in a file, whose name is in the variable that ends in _FILE."""


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
        if name not in given and (value := environment.get(variable(name))) is not None:
            given[name] = value
    for name in _ALSO_FILES:
        direct = variable(name)
        if name not in names or flags.get(name) is not None or not (path := environment.get(f"{direct}_FILE")):
            continue
        if direct in environment:  # whoever sets a file does not expect that it is never read
            faults.append(f"{direct} and {direct}_FILE are both set; must be one of the two")
            continue
        try:
            given[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"{direct}_FILE must be a readable file; {type(error).__name__} at {path!r}")
    try:
        config = Config.model_validate(given)
    except ValidationError as error:
        for detail in error.errors():
            name = str(detail["loc"][0])
            faults.append(_fault(name, detail["msg"], given.get(name, detail["input"])))
    if faults:
        raise WrongSettings(faults)
    return config


def _fault(name: str, rule: str, value: object) -> str:
    unit = " seconds" if rule.startswith("Input should") and is_span(value) else ""
    rule = rule.removeprefix("Value error, ").replace("Input should", "must") + unit
    shown = "(not shown)" if name == "database_url" else repr(value)
    return f"{variable(name)} (--{name.replace('_', '-')}) {rule}; is {shown}"


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
            help=f"{field.description} (default: {default}; {variable(name)})",
        )
