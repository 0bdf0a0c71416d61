"""How the manual is built: `make docs`."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

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
# Pages link to files of the repository, which are no pages.
suppress_warnings = ["myst.xref_missing"]
highlight_language = "text"
contract_image = Path(__file__).parent.parent / ".cache" / "contract.binpb"
