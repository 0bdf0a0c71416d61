"""Which failures are alike."""

from __future__ import annotations

from time import process_time

import pytest

from taskq_server.core.fingerprint import MOST_FRAME, MOST_PATTERN, alike, innermost, pattern_of

PYTHON = """Traceback (most recent call last):
  File "/srv/app/kitchen/oven.py", line 12, in bake
    heat()
  File "/srv/app/kitchen/heat.py", line 3, in heat
    raise Burnt
kitchen.Burnt: no
"""
GO = """panic: boom

goroutine 1 [running]:
panic({0x1, 0x2})
\t/usr/local/go/src/runtime/panic.go:884 +0x1
main.(*Oven).bake(0x1)
\t/srv/app/kitchen/oven.go:12 +0x1d
main.main()
\t/srv/app/main.go:3
"""
JAVA = """java.lang.RuntimeException: x
\tat com.kitchen.Oven.bake(Oven.java:12)
Caused by: java.io.IOException: y
\tat java.base/com.kitchen.Heat.read(Heat.java:77)
\t... 2 more
"""
JAVASCRIPT = """Error: x
    at bake (/srv/app/kitchen/oven.js:12:5)
    at async main (file:///srv/app/main.js:1:1)
"""


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("order 42 failed after 3.5 s", "order <n> failed after <n> s"),
        ("worker-7 died", "worker-<n> died"),
        ("can't open 'soup.txt': don't", "can't open <text>: don't"),
        ("connect to 10.0.0.7:5432 refused", "connect to <address> refused"),
        ("fe80:0:0:1::1 is down", "<address> is down"),
        ("task 019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10 is gone", "task <uuid> is gone"),
        ("at 0xdeadbeef, deadbeef12", "at <hex>, <hex>"),
        ("GET https://a.b/c?d=1 gave 404", "GET <url> gave <n>"),
        ("mail to bob@example.org bounced", "mail to <email> bounced"),
        ("no such file: /var/log/app/7.log", "no such file: <path>"),
        (r"no such file: C:\Users\x\a.txt", "no such file: <path>"),
        ("and/or of input/output", "and/or of input/output"),
        ("key tok_aB3xY9zzzzzzzzzz1 is bad", "key <id> is bad"),
        ("feedface is a word", "feedface is a word"),
        ("two\n  lines\0", "two lines"),
        ("", ""),
    ],
)
def test_what_changes_from_one_failure_to_the_next_is_left_out_of_a_message(message: str, pattern: str) -> None:
    assert pattern_of(message) == pattern


@pytest.mark.parametrize(
    ("stack", "frame"),
    [
        (PYTHON, "kitchen/heat.py:3 in heat"),
        (GO, "kitchen/oven.go:12 in main.(*Oven).bake"),
        (JAVA, "Heat.java:77 in com.kitchen.Heat.read"),
        (JAVASCRIPT, "kitchen/oven.js:12 in bake"),
        ("Error: x\n    at /srv/app/kitchen/oven.js:12:5", "kitchen/oven.js:12"),
        ("no trace at all", "None"),
        ("", "None"),
    ],
)
def test_a_failure_arose_in_the_innermost_frame_of_its_trace(stack: str, frame: str) -> None:
    assert str(innermost(stack)) == frame


def test_a_line_that_has_moved_and_a_folder_of_another_machine_are_the_same_place() -> None:
    one = alike("cook", "Burnt", "no", PYTHON)
    other = alike("cook", "Burnt", "no", PYTHON.replace("line 3", "line 4").replace("/srv/app", "/home/me"))
    assert one.fingerprint == other.fingerprint
    assert one.top_frame != other.top_frame


def test_name_kind_words_and_place_each_make_another_group_however_they_are_divided() -> None:
    same = ("cook", "Burnt", "no", PYTHON)
    others = [
        ("bake", "Burnt", "no", PYTHON), ("cook", "Spilt", "no", PYTHON), ("cook", "Burnt", "yes", PYTHON),
        ("cook", "Burnt", "no", GO), ("cook", "Burnt", "no", ""), ("cookB", "urnt", "no", PYTHON),
    ]  # fmt: skip
    assert len({alike(*one).fingerprint for one in (same, *others)}) == 1 + len(others)


def test_a_fingerprint_never_changes_since_it_stands_in_databases() -> None:
    assert alike("cook", "Burnt", "order 42 is burnt", PYTHON).fingerprint == "4ff39b87f664f2fa"


@pytest.mark.parametrize(
    "piece", ["a", "'", "/a", "1:", "a-", "@a", "a.", "0x", '"a', "a:\\", "1.", "é", "`", "~", "f"]
)
def test_a_message_that_was_made_to_be_slow_is_not(piece: str) -> None:
    assert len(pattern_of(piece * 4_096)) <= MOST_PATTERN
    assert seconds_of(pattern_of, piece * 4_096) < 0.05


@pytest.mark.parametrize(
    "piece", ["\n    at ", "    at a ", '\n  File "', "a(", "a", "a.", "a/", "async ", "((\n", " ", "\n", "Caused by: "]
)
def test_a_trace_that_was_made_to_be_slow_is_not(piece: str) -> None:
    assert seconds_of(innermost, "\n    at " + piece * 8_192) < 0.1


def test_what_is_kept_of_a_trace_is_short() -> None:
    stack = f'  File "{"x" * 9_000}.py", line 1, in {"y" * 900}'
    assert (
        len(alike("cook", "Burnt", "", stack[:8_000] + '\n  File "a.py", line 1, in ' + "y" * 900).top_frame)
        <= MOST_FRAME
    )


def seconds_of(work: object, text: str) -> float:
    began = process_time()
    work(text)  # type: ignore[operator]
    return process_time() - began
