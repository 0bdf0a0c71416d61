"""`taskq proto`: the contract, for other languages and other tools."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.protobuf import descriptor_pb2, descriptor_pool

from admin_client.command import main
from tests.support.process import ROOT

PROTOS = ROOT / "protos" / "taskq" / "v1"


def proto(*words: str) -> Result:
    return CliRunner().invoke(main, ["proto", *words])


def test_one_file_is_printed_as_it_is() -> None:
    result = proto("task.proto")
    assert (result.exit_code, result.stdout) == (0, (PROTOS / "task.proto").read_text())


def test_all_of_them_are_printed_one_after_the_other() -> None:
    shown = proto().stdout
    for path in PROTOS.glob("*.proto"):
        assert f"// taskq/v1/{path.name}\n{path.read_text()}" in shown


def test_a_folder_gets_them_with_what_they_import(tmp_path: Path) -> None:
    result = proto("--out", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.proto")}
    assert {f"{tmp_path}/{path}" for path in written} == set(result.stdout.split())
    assert {path.read_text() for path in PROTOS.glob("*.proto")} <= {
        path.read_text() for path in tmp_path.rglob("*.proto")
    }
    for place in written:
        for line in (tmp_path / place).read_text().splitlines():
            if line.startswith("import "):
                imported = line.split('"')[1]
                assert imported in written or imported.startswith("google/protobuf/"), line


def test_the_descriptor_set_stands_alone() -> None:
    known = descriptor_pb2.FileDescriptorSet.FromString(proto("--descriptor-set").stdout_bytes)
    pool = descriptor_pool.DescriptorPool()
    for file in known.file:
        pool.AddSerializedFile(file.SerializeToString())
    for path in PROTOS.glob("*.proto"):
        assert pool.FindFileByName(f"taskq/v1/{path.name}").package == "taskq.v1"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["nothing.proto"], "there is no nothing.proto; there is admin_service.proto, "),
        (["--descriptor-set", "task.proto"], "give no NAMES"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_what_is_not_there_is_refused(words: list[str], rule: str) -> None:
    result = proto(*words)
    assert result.exit_code in (1, 2) and rule in result.stderr
