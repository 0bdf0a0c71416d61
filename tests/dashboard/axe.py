"""What axe has to say about a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

AXE = (Path(__file__).parent.parent / "support" / "axe" / "axe.min.js").read_text(encoding="utf-8")
RULES = {"light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "dark": ["color-contrast"]}
"""By the theme: in the dark only colours are other."""


def faults(url: str, theme: str) -> Callable[[Any], list[str]]:
    """What keeps somebody out of this page. The reader's context has to bypass the policy."""

    def run(page: Any) -> list[str]:
        page.goto(url)
        page.evaluate(AXE)
        found = page.evaluate(f"axe.run({{runOnly: {RULES[theme]}}})")
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:150]} {json.dumps(one['nodes'][0]['any'][:1])[:300]}"
            for one in found["violations"]
        ]

    return run
