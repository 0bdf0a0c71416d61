"""`taskq proto`: the contract itself."""

from __future__ import annotations

import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

FOLDER = "taskq/v1"
DESCRIPTORS = "descriptors.binpb"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="write them into this folder instead")
@click.option("--descriptor-set", is_flag=True, help="all of it compiled: a google.protobuf.FileDescriptorSet")
def proto(names: tuple[str, ...], out: Path | None, descriptor_set: bool) -> None:
    """Print the contract's .proto files: all of them, or NAMES such as task.proto.

    \b
    taskq proto --out protos                      # taskq/v1/*.proto, and what of google/api they import
    taskq proto --descriptor-set > taskq.binpb    # grpcurl -protoset taskq.binpb …
    """
    if descriptor_set:
        if names or out is not None:
            raise click.UsageError("--descriptor-set has all: give no NAMES, no --out", click.get_current_context())
        _print_set()
        return
    files = _files()
    if unknown := [name for name in names if name not in files]:
        raise click.BadParameter(f"there is no {unknown[0]}; there is {', '.join(files)}", param_hint="NAMES")
    if out is None:
        parts = [files[name].read_text("utf-8") for name in names or files]
        heads = [f"// {FOLDER}/{name}\n" if len(parts) > 1 else "" for name in names or files]
        click.echo("\n".join(head + part for head, part in zip(heads, parts, strict=True)), nl=False)
        return
    told = {f"{FOLDER}/{name}": files[name] for name in names or files}
    for place, source in (told | _imported()).items():
        path = out / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read_bytes())
        except OSError as error:
            raise click.FileError(str(path), error.strerror) from error
        click.echo(path)


def _files() -> dict[str, Traversable]:
    found = {one.name: one for one in resources.files("taskq.v1").iterdir() if one.name.endswith(".proto")}
    return dict(sorted(found.items()))


def _imported() -> dict[str, Traversable]:
    """What protoc does not bring along itself."""
    folder = resources.files("google.api")
    return {f"google/api/{name}.proto": folder / f"{name}.proto" for name in ("annotations", "field_behavior", "http")}


def _print_set() -> None:
    """With all that it imports, so that it stands alone."""
    if sys.stdout.isatty():
        raise click.UsageError("it is binary: send it into a file, or a pipe", click.get_current_context())
    from google.api import annotations_pb2, field_behavior_pb2, http_pb2
    from google.protobuf import descriptor_pb2, duration_pb2, struct_pb2, timestamp_pb2

    known = descriptor_pb2.FileDescriptorSet()
    for module in (
        descriptor_pb2, duration_pb2, struct_pb2, timestamp_pb2, http_pb2, annotations_pb2, field_behavior_pb2,
    ):  # fmt: skip
        known.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    known.MergeFromString((resources.files("taskq.v1") / DESCRIPTORS).read_bytes())
    click.echo(known.SerializeToString(), nl=False)
