"""The wheel and the sdist: all that is needed is in them, and nothing else."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from importlib.metadata import version
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from tests.support.process import ROOT

VERSION = version("taskq")
PACKAGES = {
    "admin_client": ROOT / "admin_client",
    "client_core": ROOT / "client_core",
    "processor_client": ROOT / "processor_client",
    "scheduler_client": ROOT / "scheduler_client",
    "taskq": ROOT / "generated" / "taskq",
    "taskq_server": ROOT / "taskq_server",
}
INFO = f"taskq-{VERSION}.dist-info"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dist")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


@pytest.fixture(scope="module")
def sdist(folder: Path) -> Path:
    (built,) = SdistBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{INFO}/METADATA"))


def files_of(path: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(path).namelist() if not name.startswith(INFO)}


def on_disk() -> set[str]:
    """Every file of every package, as it stands in the wheel."""
    return {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: Path) -> None:
    assert files_of(wheel) == on_disk()


def test_the_wheel_brings_the_history_of_the_tables_the_generated_code_and_its_types(wheel: Path) -> None:
    files = files_of(wheel)
    migrations = "taskq_server/store/migrations"
    assert {
        f"{migrations}/env.py",
        f"{migrations}/script.py.mako",
        f"{migrations}/versions/0001_first_tables.py",
    } <= files
    assert {"taskq/v1/task_pb2.py", "taskq/v1/task_pb2.pyi", "taskq/v1/scheduler_service_pb2_grpc.py"} <= files
    assert {f"{package}/py.typed" for package in PACKAGES} <= files


def test_the_wheel_runs_everywhere_and_has_its_command(wheel: Path) -> None:
    assert wheel.name == f"taskq-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert "taskq = admin_client.start:main" in archive.read(f"{INFO}/entry_points.txt").decode()
        assert archive.read(f"{INFO}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_holds_what_the_wheel_is_made_of_and_no_tests(sdist: Path, tmp_path: Path, wheel: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / f"taskq-{VERSION}"
    beside = {path.name for path in root.iterdir()}
    assert beside - {"PKG-INFO", ".gitignore"} == {
        "admin_client", "client_core", "processor_client", "scheduler_client", "taskq_server", "generated", "protos",
        "pyproject.toml", "CHANGELOG.md", "LICENSE", "README.md",
    }  # fmt: skip
    (again,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    assert files_of(Path(again)) == files_of(wheel)


def test_the_sdk_needs_grpc_and_protobuf_alone(metadata: Message) -> None:
    needs = metadata.get_all("Requires-Dist") or []
    always = {re.split(r"[\s<>=!~;\[]", need, maxsplit=1)[0] for need in needs if "extra ==" not in need}
    assert always == {"grpcio", "grpcio-status", "protobuf"}
    assert {"server", "postgres", "cli", "otel", "all"} <= set(metadata.get_all("Provides-Extra") or [])


def test_every_requirement_has_a_lowest_version(metadata: Message) -> None:
    needs = [need.partition(";")[0].strip() for need in metadata.get_all("Requires-Dist") or []]
    assert [need for need in needs if not need.startswith("taskq[") and not re.search(r"[>=]=", need)] == []


def test_the_metadata_says_what_is_so(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Project-URL") is None, "there is no home to point at"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


def test_an_index_would_take_both(wheel: Path, sdist: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("PASSED") == 2
