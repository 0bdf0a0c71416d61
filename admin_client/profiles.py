"""Profiles: servers by a name, each with what lets the command in, in `$XDG_CONFIG_HOME/taskq/config.toml`.

    use = "prod"

    [profiles.prod]
    address = "queue.example:50051"
    tls_ca = "ca.pem"
    token_file = "prod.token"

Files are found beside it. Flags win over the profile that --profile names, that one over the environment, and the
environment over the profile in use.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

FILES: Final = ("tls_ca", "tls_cert", "tls_key", "token_file")
KEYS: Final = ("address", "tls", "tls_ca", "tls_cert", "tls_key", "tls_server_name", "token", "token_file")
"""What a profile may say: each is a flag, and a variable, of the same name."""

_TLS: Final = ("tls", "tls_ca", "tls_cert", "tls_key", "tls_server_name")
_TOGETHER: Final = (("tls_cert", "tls_key"), ("token", "token_file"))
"""Of these all come from one place."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")

Profile = dict[str, str | bool]


class WrongProfiles(click.ClickException):
    """The file cannot be used, or has no such profile: wrong use."""

    exit_code = 2


@dataclass
class Profiles:
    """What stands in one file, or in none.

    used   the profile that counts where none is named; empty: none does; None: the file says nothing of it
    """

    path: Path
    used: str | None = None
    profiles: dict[str, Profile] = field(default_factory=dict)

    def write(self) -> None:
        """Writes the file anew, where it is if it is a link; for its owner alone from its first byte on."""
        lines = [f"use = {_toml(self.used)}\n"] if self.used is not None else []
        for name, profile in sorted(self.profiles.items()):
            lines.append(f"\n[profiles.{name}]\n" if lines else f"[profiles.{name}]\n")
            lines += [f"{key} = {_toml(profile[key])}\n" for key in KEYS if key in profile]
        try:
            path = self.path.resolve()
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            half = path.with_name(f".{path.name}.new")
            half.unlink(missing_ok=True)
            half.touch(mode=0o600, exist_ok=False)
            half.write_text("".join(lines), "utf-8")
            half.replace(path)
        except OSError as error:
            raise WrongProfiles(f"{self.path} cannot be written: {error.strerror}") from None


def own_path(environment: Mapping[str, str]) -> Path:
    """The file of whoever calls."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    try:
        place = Path(folder) if folder.startswith("/") else Path(environment.get("HOME") or Path.home()) / ".config"
    except RuntimeError:  # a user that this machine does not know, as in a container
        place = Path("/nonexistent")
    return place / "taskq" / "config.toml"


def own(environment: Mapping[str, str]) -> Profiles:
    """What stands in it."""
    return _read(own_path(environment))


def known(environment: Mapping[str, str]) -> Profiles:
    """The same with what all of this machine have, in `$XDG_CONFIG_DIRS`, unless one's own says it otherwise."""
    found = own(environment)
    for folder in (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        if folder.startswith("/"):
            shared = _read(Path(folder) / "taskq" / "config.toml")
            found.profiles = shared.profiles | found.profiles
            found.used = shared.used if found.used is None else found.used
    return found


def named(name: str, environment: Mapping[str, str]) -> Profile:
    """The profile of this name. WrongProfiles when there is none."""
    found = known(environment)
    if name not in found.profiles:
        there = ", ".join(sorted(found.profiles)) or "none"
        raise WrongProfiles(f"there is no profile {name!r} in {found.path}; there is {there}")
    return found.profiles[name]


def chosen(given: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The name of the profile that counts; empty when none does.

    Where the address is given otherwise, only one that a flag names counts: its token and its files are for its own
    server. WrongProfiles when the environment names a profile and an address.
    """
    if name := given.get("profile"):
        return str(name)
    if given.get("address") is not None:
        return ""
    name, address = (environment.get(f"TASKQ_{what}", "").strip() for what in ("PROFILE", "ADDRESS"))
    if name and address:
        raise WrongProfiles(f"TASKQ_PROFILE is {name!r} and TASKQ_ADDRESS is {address!r}; must be one of the two")
    return name or ("" if address else known(environment).used or "")


def unnamed(given: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The name of the profile that counts, if it does only because it is in use; else empty."""
    is_named = given.get("profile") or environment.get("TASKQ_PROFILE", "").strip()
    return "" if is_named else chosen(given, environment)


def completed(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The flags, and from the profile that counts what is not said by what wins over it; without `profile`."""
    flags = {name: value for name, value in given.items() if name != "profile"}
    if not (name := chosen(given, environment)):
        return flags
    profile = named(name, environment)
    winning = {} if given.get("profile") else environment
    said = _said(flags, winning)
    if "address" not in said | set(profile) and (address := environment.get("TASKQ_ADDRESS", "").strip()):
        raise WrongProfiles(f"profile {name!r} has no address, and TASKQ_ADDRESS is {address!r}; say one by --address")
    is_plain = flags.get("tls") is False or winning.get("TASKQ_TLS", "").strip().lower() in ("false", "0", "no")
    unwanted = said | {key for group in _TOGETHER if said & set(group) for key in group}
    if said & set(_TLS):
        unwanted |= set(_TLS) if is_plain else {"tls"}
    return flags | {key: value for key, value in profile.items() if key in flags and key not in unwanted}


def _said(flags: Mapping[str, Any], environment: Mapping[str, str]) -> set[str]:
    """What flags or the environment say."""
    return {key for key in KEYS if flags.get(key) is not None or environment.get(f"TASKQ_{key.upper()}", "").strip()}


def is_any_used(environment: Mapping[str, str]) -> bool:
    """Whether a profile counts where none is named."""
    return bool(environment.get("TASKQ_PROFILE", "").strip() or known(environment).used)


def names(environment: Mapping[str, str]) -> list[str]:
    """Of all that are known; none when they cannot be read: for who is still typing."""
    try:
        return sorted(known(environment).profiles)
    except WrongProfiles:
        return []


def check_name(name: str) -> None:
    """WrongProfiles for what cannot be a profile's."""
    if not _NAME.fullmatch(name):
        raise WrongProfiles(f"{name!r} cannot be a profile's name; must be letters, digits, _ and -")


def check(name: str, profile: Mapping[str, object], path: Path) -> None:
    """WrongProfiles for one that contradicts itself."""
    where = f"{path}: profile {name!r}"
    if unknown := [key for key in profile if key not in KEYS]:
        raise WrongProfiles(f"{where} has {', '.join(unknown)}; must be of {', '.join(KEYS)}")
    for key, value in profile.items():
        kind = bool if key == "tls" else str
        if not isinstance(value, kind):
            raise WrongProfiles(f"{where}: {key} must be {'true or false' if kind is bool else 'text'}")
        if isinstance(value, str) and not (value and value.isprintable()):
            raise WrongProfiles(f"{where}: {key} must be text, on one line")
    if "token" in profile and "token_file" in profile:
        raise WrongProfiles(f"{where} has a token and a token_file; must have one")
    if ("tls_cert" in profile) != ("tls_key" in profile):
        raise WrongProfiles(f"{where} must have both tls_cert and tls_key, or neither")
    if profile.get("tls") is False and (files := [key for key in _TLS[1:] if key in profile]):
        raise WrongProfiles(f"{where} has tls = false and {files[0]}, which contradict each other")


def _read(path: Path) -> Profiles:
    import tomllib

    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            told = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return Profiles(path)
    except (OSError, ValueError) as fault:
        if isinstance(fault, PermissionError) and not _is_seen(path):  # somebody else's home, as in a container
            return Profiles(path)
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        raise WrongProfiles(f"{path} cannot be read: {why}") from None
    profiles, used = told.get("profiles", {}), told.get("use")
    if not isinstance(used, str | None) or not isinstance(profiles, dict) or set(told) - {"use", "profiles"}:
        raise WrongProfiles(f"{path} must have `use`, and tables called [profiles.NAME]")
    for name, profile in profiles.items():
        if not isinstance(profile, dict):
            raise WrongProfiles(f"{path} must have `use`, and tables called [profiles.NAME]")
        check(name, profile, path)
        if "token" in profile and stat.S_IMODE(mode) & 0o077:
            raise WrongProfiles(f"{path} holds a token, and others can read it: chmod 600 {path}")
        profile |= {key: str(_beside(path, profile[key])) for key in FILES if key in profile}
    return Profiles(path, used, profiles)


def _is_seen(path: Path) -> bool:
    """Whether its folder can be entered."""
    try:
        path.lstat()
    except PermissionError:
        return False
    return True


def _beside(path: Path, file: str) -> Path:
    return path.parent / Path(file).expanduser()


def _toml(value: str | bool) -> str:
    # What is printable, and no control character, JSON writes as TOML does.
    return str(value).lower() if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
