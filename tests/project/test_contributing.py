"""The files for those who contribute, cite or check: they parse, and say what the rest of the project says."""

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github/workflows/ci.yml"


def mapping(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_public_ci_runs_what_everybody_runs() -> None:
    job = mapping(WORKFLOW)["jobs"]["tests"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
    assert job["steps"][-1]["env"]["TORCH_INDEX"].endswith("/cpu")
    assert "TORCH_INDEX ?=" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_public_ci_has_the_version_that_was_tested_and_few_rights() -> None:
    workflow = mapping(WORKFLOW)
    used = [step for step in workflow["jobs"]["tests"]["steps"] if "uses" in step]
    assert workflow["permissions"] == {"contents": "read"}
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in used)
    setup = configparser.ConfigParser(comment_prefixes=("#",))
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["options"]["python_requires"] == f">={used[1]['with']['python-version']}"


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = mapping(ROOT / "CITATION.cff")
    setup = configparser.ConfigParser(comment_prefixes=("#",))
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == setup["metadata"]["version"]
    assert citation["license"] == setup["metadata"]["license"]
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["identifiers"][0]["value"] == "arXiv:2409.15657"
    named = (ROOT / "docs/paper_to_code.md").read_text(encoding="utf-8")
    assert paper["title"] in named


@pytest.mark.parametrize("target", ["install", "test", "check", "test-slow", "test-real", "imports", "bench"])
def test_targets_of_the_contributing_page_exist(target: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"make {target}" in page
    assert f".PHONY: {target}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
