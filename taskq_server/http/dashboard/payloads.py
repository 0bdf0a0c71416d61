"""What a task carries, as it can be shown: JSON as a tree, text as text, anything else byte by byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from taskq.v1 import task_pb2

MOST_SHOWN = 64 << 10
MOST_HEX = 1 << 10
MOST_NODES = 2_000
MOST_DEPTH = 40


@dataclass(frozen=True, slots=True)
class Node:
    """A value of JSON: a leaf with its text, or a group with its children."""

    key: str
    kind: str
    text: str
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A payload for a page."""

    content_type: str
    size: int
    metadata: list[tuple[str, str]]
    text: str = ""
    tree: Node | None = None
    hex: str = ""
    is_cut: bool = False


def shown(payload: task_pb2.Payload, text: str = "") -> Shown:
    """`text` is the payload's data as the server reads it; without, it is read here."""
    about = payload.content_type or "application/octet-stream", len(payload.data), sorted(payload.metadata.items())
    text = text or _text(payload)
    if not text and payload.data:
        return Shown(*about, hex=_hex(payload.data[:MOST_HEX]), is_cut=len(payload.data) > MOST_HEX)
    tree = _tree(text) if "json" in payload.content_type and len(text) <= MOST_SHOWN else None
    return Shown(*about, text=text[:MOST_SHOWN], tree=tree, is_cut=len(text) > MOST_SHOWN)


def _text(payload: task_pb2.Payload) -> str:
    kind = payload.content_type
    if "json" in kind or kind.startswith("text/"):
        try:
            return payload.data.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return ""


def _hex(data: bytes) -> str:
    """As hexdump -C writes it."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:06x}  {row.hex(' '):<47}  {letters}")
    return "\n".join(lines)


def _tree(text: str) -> Node | None:
    """None for what is no JSON, or too much of it."""
    try:
        # As it is written: 9007199254740993 and 1.0 stay what they are.
        value = json.loads(text, parse_int=_Figure, parse_float=_Figure, parse_constant=_Figure)
        return _node("", value, [MOST_NODES], 0)
    except (ValueError, RecursionError, OverflowError):
        return None


class _Figure(str):
    """A number, as its characters."""


def _node(key: str, value: Any, left: list[int], depth: int) -> Node:
    left[0] -= 1
    if left[0] < 0 or depth > MOST_DEPTH:
        raise OverflowError
    if isinstance(value, dict):
        children = tuple(_node(str(name), one, left, depth + 1) for name, one in value.items())
        return Node(key, "object", f"{{{len(children)}}}", children)
    if isinstance(value, list):
        children = tuple(_node(str(i), one, left, depth + 1) for i, one in enumerate(value))
        return Node(key, "array", f"[{len(children)}]", children)
    if isinstance(value, _Figure):
        return Node(key, "number", str(value))
    if isinstance(value, str):
        return Node(key, "string", json.dumps(value, ensure_ascii=False))
    return Node(key, "word", {None: "null", True: "true", False: "false"}[value])
