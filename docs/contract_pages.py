"""Pages of the contract, made from the descriptors and their comments: one for each file of `protos/taskq/v1`.

The descriptors come with their comments from `buf build`, since generated code has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

PACKAGE = "taskq.v1"
# The numbers of fields in descriptor.proto, by which the paths of comments are made.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM, _MESSAGE_ONEOF = 2, 3, 4, 8
_ENUM_VALUE, _SERVICE_METHOD, _SYNTAX = 2, 2, 12

Path_ = tuple[int, ...]


class Page:
    """One file of the contract, as Markdown."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self.file = file
        self._comments = {tuple(at.path): at.leading_comments for at in file.source_code_info.location}
        self._opening = next(
            (at.leading_detached_comments or [at.leading_comments] for at in file.source_code_info.location
             if tuple(at.path) == (_SYNTAX,)),
            [""],
        )  # fmt: skip
        self._lines: list[str] = []

    @property
    def name(self) -> str:
        """As in `task.proto`: `task`."""
        return Path(self.file.name).stem

    def text(self) -> str:
        self._say(f"# {Path(self.file.name).name}", _prose(self._opening[0]))
        for number, service in enumerate(self.file.service):
            self._service(service, (_FILE_SERVICE, number))
        for number, message in enumerate(self.file.message_type):
            self._message(message, message.name, (_FILE_MESSAGE, number))
        for number, enum in enumerate(self.file.enum_type):
            self._enum(enum, enum.name, (_FILE_ENUM, number))
        return "\n\n".join(self._lines) + "\n"

    def _say(self, *paragraphs: str) -> None:
        self._lines += [paragraph for paragraph in paragraphs if paragraph]

    def _comment(self, path: Path_) -> str:
        return self._comments.get(path, "")

    def _service(self, service: ServiceDescriptorProto, path: Path_) -> None:
        self._say(_heading(2, service.name), _prose(self._comment(path)))
        for number, method in enumerate(service.method):
            self._say(_heading(3, f"{service.name}.{method.name}"))
            answer = f"{'stream ' if method.server_streaming else ''}{_link(method.output_type)}"
            self._say(f"{_link(method.input_type)} → {answer}{_http(method)}")
            self._say(_prose(self._comment((*path, _SERVICE_METHOD, number))))

    def _message(self, message: DescriptorProto, name: str, path: Path_) -> None:
        if message.options.map_entry:
            return
        self._say(_heading(2, name), _prose(self._comment(path)))
        rows = [
            f"| {field.number} | `{field.name}` | {self._type(message, field)} | "
            f"{_cell(self._comment((*path, _MESSAGE_FIELD, number)))} |"
            for number, field in enumerate(message.field)
        ]
        if rows:
            self._say("\n".join(["| | field | type | |", "|--:|---|---|---|", *rows]))
        for number, oneof in enumerate(message.oneof_decl):
            members = [f"`{one.name}`" for one in message.field if one.HasField("oneof_index") and
                       one.oneof_index == number and not one.proto3_optional]  # fmt: skip
            if members:
                self._say(f"One of {', '.join(members)} (`{oneof.name}`): "
                          f"{_cell(self._comment((*path, _MESSAGE_ONEOF, number)))}")  # fmt: skip
        for number, nested in enumerate(message.nested_type):
            self._message(nested, f"{name}.{nested.name}", (*path, _MESSAGE_NESTED, number))
        for number, enum in enumerate(message.enum_type):
            self._enum(enum, f"{name}.{enum.name}", (*path, _MESSAGE_ENUM, number))

    def _enum(self, enum: EnumDescriptorProto, name: str, path: Path_) -> None:
        self._say(_heading(2, name), _prose(self._comment(path)))
        rows = [
            f"| {value.number} | `{value.name}` | {_cell(self._comment((*path, _ENUM_VALUE, number)))} |"
            for number, value in enumerate(enum.value)
        ]
        self._say("\n".join(["| | value | |", "|--:|---|---|", *rows]))

    def _type(self, message: DescriptorProto, field: FieldDescriptorProto) -> str:
        for nested in message.nested_type:
            if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
                key, value = nested.field
                return f"map of {_plain(key)} to {_plain(value)}"
        return f"repeated {_plain(field)}" if field.label == field.LABEL_REPEATED else _plain(field)


def _plain(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _link(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _heading(level: int, name: str) -> str:
    return f"({_label(name)})=\n{'#' * level} {name}"


def _label(name: str) -> str:
    return f"contract-{name.lower().replace('.', '-')}"


def _link(type_name: str) -> str:
    name = type_name.removeprefix(".")
    if name.startswith(f"{PACKAGE}."):
        name = name.removeprefix(f"{PACKAGE}.")
        return f"[{name}](#{_label(name)})"
    return f"`{name}`"


def _http(method: MethodDescriptorProto) -> str:
    if not method.options.HasExtension(annotations_pb2.http):
        return ""
    rule = method.options.Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    return f"; `{verb.upper()} {getattr(rule, verb)}`" if verb else ""


def _prose(comment: str) -> str:
    """A comment as Markdown: what is indented in it is a list."""
    paragraphs: list[str] = []
    for line in comment.splitlines():
        text = line.removeprefix(" ")
        if text.startswith("  "):
            _open(paragraphs, "- ", text.strip())
        elif not text.strip():
            paragraphs.append("")
        elif paragraphs and paragraphs[-1] and not paragraphs[-1].startswith("- "):
            paragraphs[-1] += f" {text}"
        else:
            paragraphs.append(text)
    return "\n".join(_spaced(_without_markup(paragraph) for paragraph in paragraphs)).strip()


def _open(paragraphs: list[str], mark: str, text: str) -> None:
    if text[:1].isupper() and text.split(" ", 1)[0].isupper():
        paragraphs.append(mark + text)
    elif paragraphs:
        paragraphs[-1] += f" {text}"


def _spaced(paragraphs: Iterator[str]) -> Iterator[str]:
    """Markdown wants an empty line before a list."""
    before = ""
    for paragraph in paragraphs:
        if paragraph.startswith("- ") and before and not before.startswith("- "):
            yield ""
        yield paragraph
        before = paragraph


def _cell(comment: str) -> str:
    return _without_markup(" ".join(line.strip() for line in comment.splitlines())).replace("|", "\\|")


def _without_markup(text: str) -> str:
    """Of what our comments use, only code is Markdown; stars and underscores outside of it mean themselves."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"[*_\[<]", r"\\\g<0>", part) for part in parts[::2]]
    return "`".join(parts)


def pages(image: Path) -> list[Page]:
    """The files of the contract, in the order of their names."""
    files = FileDescriptorSet.FromString(image.read_bytes()).file
    return sorted((Page(file) for file in files if file.package == PACKAGE), key=lambda page: page.name)


def write(app: Any) -> None:
    """Writes them beside the other pages, before these are read; the same text again changes no file."""
    folder = Path(app.srcdir) / "reference" / "contract"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{page.name}.md": page.text() for page in pages(Path(app.config.contract_image))}
    for path in folder.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("contract_image", None, "env")
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
