"""The documentation: README.md, and the pages of `docs/` in the order in which it lists them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"


def section(text: str, title: str) -> str:
    """Return what stands under a heading, up to the next heading of level 2 or 3.

    Args:
        text: of a page.
        title: the heading, as it is written: "### send".
    """
    return re.split(r"^#{2,3} ", text.split(f"\n{title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def pages() -> list[Path]:
    """Return the README and, after it, its pages, as a reader meets them."""
    listed = section(README.read_text(encoding="utf-8"), "## The pages")
    return [README, *(ROOT / name for name in re.findall(r"\]\((docs/[a-z]+\.md)\)", listed))]


def documents() -> list[Path]:
    """Return every file in Markdown that a reader of the project may open."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), ROOT / "npm" / "README.md"]


def links(page: Path) -> list[str]:
    """Return where a page's links and pictures lead, but for those to other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", _prose(page))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """Return what links to a page can have behind `#`: its headings, as GitHub names them."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def _prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
