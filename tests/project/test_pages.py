"""What a page names is there: files, folders, other pages and their headings, functions of the paper's table."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
PAGES = [ROOT / line for line in LISTED.splitlines()]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
FOLDERS = (
    "lightning_m2pt",
    "experiments",
    "data_modules",
    "callbacks",
    "tests",
    "benchmarks",
    "docs",
    ".github",
    ".ci",
)
NAMED_PATH = re.compile(rf"(?<![\w/.-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\w)")
PLACEHOLDERS = re.compile(r"\b[A-Z]{3,}\b")
"""Words such as NAME, which stand for something."""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            path = (page.parent / target).resolve() if target else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_paths_exist(page: Path) -> None:
    found = NAMED_PATH.findall(page.read_text(encoding="utf-8"))
    missing = [path for path in found if not PLACEHOLDERS.search(path) and not (ROOT / path).exists()]
    assert not missing


def test_the_papers_table_names_what_is_in_the_files() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs/paper_to_code.md").read_text(encoding="utf-8").splitlines()]
    missing = []
    for row in rows:
        files = re.findall(r"`([\w/]+\.py)`", row[2]) if len(row) == 4 else []
        text = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
        names = re.findall(r"`([A-Za-z_][\w.]*)`", row[3]) if files else []
        parts = [part for dotted in names for part in dotted.split(".")]
        missing += [f"{part} is not in {files}" for part in parts if not re.search(rf"\b{part}\b", text)]
    assert not missing
