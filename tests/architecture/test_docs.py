"""What the documentation points at is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.architecture.source_tree import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


def links(page: Path) -> list[str]:
    """Relative ones; what is indented is an example."""
    lines = [line for line in page.read_text().splitlines() if not line.startswith("    ")]
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", "\n".join(lines))
    return [link for link in found if "://" not in link]


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in links(page)
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_every_page_is_reached_from_the_first() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        for link in links(page):
            target = (page.parent / link).resolve()
            waiting += sorted(target.glob("*.md")) if target.is_dir() else [target]
        waiting = [one for one in waiting if one.suffix == ".md"]
    assert [page for page in PAGES if page.resolve() not in reached] == []


def test_what_is_written_from_the_code_says_what_the_code_says() -> None:
    """`make reference` writes it anew."""
    for script in ("reference.py", "deploy_files.py"):
        command = [sys.executable, str(ROOT / "scripts" / script), "--check"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
