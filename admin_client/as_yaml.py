"""An answer as YAML: what protobuf writes in JSON, in another dress."""

from __future__ import annotations

from typing import Any

from admin_client.errors import USAGE, Ended


def text(answer: Any) -> str:
    """One document. Ended when there is no library for it."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise Ended(USAGE, "YAML needs PyYAML, which is not installed", "pip install 'taskq[cli]'") from None
    if not isinstance(answer, dict):
        from google.protobuf import json_format

        answer = json_format.MessageToDict(answer)

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Lists stand deeper than what they are of, and what might be read as another kind of thing is quoted."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
            return super().increase_indent(flow, False)

    Dumper.add_representer(str, lambda dumper, one: dumper.represent_scalar(_TEXT, one, _style(one)))
    written: str = yaml.dump(answer, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return written


_TEXT = "tag:yaml.org,2002:str"


def _style(one: str) -> str | None:
    """PyYAML writes YAML 1.1; who reads 1.2 would take `12e3`, which base64 can look like, for a number."""
    if "\n" in one:
        return "|"
    return "'" if one[:1] in tuple("0123456789+-.") or one in ("y", "n", "Y", "N") else None
