"""Text as protobuf and every database take it, whatever a program has put into it."""


def clean(text: str) -> str:
    """Without NUL, and without the halves of characters that UTF-8 cannot write; shown as escapes instead."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
