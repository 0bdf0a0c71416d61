"""How the manual is built: `make docs`."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

project = "taskq"
author = "the taskq authors"
release = version_of("taskq")
extensions = ["myst_parser", "contract_pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"taskq {release}"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
highlight_language = "text"
contract_image = Path(__file__).parent.parent / ".cache" / "contract.binpb"

_LEAVES_THE_MANUAL = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")
"""A link to a file of the repository that is no page: on a forge it leads there."""


def setup(app: Sphinx) -> None:
    app.connect("source-read", _bring_files_along)


def _bring_files_along(app: Sphinx, page: str, source: list[str]) -> None:
    """In the manual such a link leads to a copy of the file; where there is none, the build warns of it, and fails."""
    source[0] = _LEAVES_THE_MANUAL.sub(r"{download}`\1 <\2>`", source[0])
