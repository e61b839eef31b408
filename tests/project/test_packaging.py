"""The lock, the bounds and the make targets say the same thing."""

import configparser
import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from lightning_m2pt.errors import BadInputError
from tests.real.pair import pair_folder

ROOT = Path(__file__).parents[2]
SECURITY_FLOORS = {"torch": "2.10", "transformers": "5.5", "lightning": "2.6.6"}
LOCK = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared_requirements() -> list[Requirement]:
    setup = configparser.ConfigParser(comment_prefixes=("#",))
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    return [Requirement(line) for text in listed for line in text.splitlines() if line.strip()]


def test_the_lock_names_no_local_builds_and_no_cuda_packages() -> None:
    for name, locked in LOCK.items():
        assert "+" not in locked
        assert not name.startswith(("nvidia", "cuda", "triton"))


@pytest.mark.parametrize("requirement", declared_requirements(), ids=lambda requirement: requirement.name)
def test_every_requirement_is_locked_within_its_bounds(requirement: Requirement) -> None:
    locked = {canonical(name): locked for name, locked in LOCK.items()}
    assert requirement.specifier.contains(locked[canonical(requirement.name)])


@pytest.mark.parametrize(("name", "floor"), SECURITY_FLOORS.items())
def test_security_floors_hold_in_the_bounds_and_in_this_environment(name: str, floor: str) -> None:
    bound = next(requirement for requirement in declared_requirements() if requirement.name == name)
    assert {str(specifier) for specifier in bound.specifier} == {f">={floor}"}
    assert Version(version(name)) >= Version(floor)


def test_make_help_explains_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, flags=re.MULTILINE))
    targets -= {"check-exp", "check-sweep", "check-real"}
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in shown.splitlines() if line.startswith("  make ")} == targets


@pytest.mark.parametrize("target", ["train", "evaluate", "params"])
def test_an_unknown_experiment_ends_in_three_lines(target: str) -> None:
    result = subprocess.run(
        ["make", "--silent", target, "EXP=m2pt_bass"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert result.returncode == 2
    assert lines[0] == "error: EXP: there is no experiment 'm2pt_bass'"
    assert len(lines) == 3


def test_an_unknown_sweep_ends_in_three_lines() -> None:
    result = subprocess.run(
        ["make", "--silent", "sweep", "SWEEP=ablatoin"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert result.returncode == 2
    assert lines[0] == "error: SWEEP: there is no sweep 'ablatoin'"
    assert "ablation comparison lengths" in lines[1]
    assert len(lines) == 3


def test_without_the_real_pair_its_tests_end_in_three_lines(tmp_path: Path) -> None:
    """They are not skipped; started without make, each of them is refused by the same words."""
    there = os.environ | {"M2PT_MODELS": str(tmp_path)}
    result = subprocess.run(
        ["make", "--silent", "test-real"], cwd=ROOT, env=there, capture_output=True, text=True, check=False
    )
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert result.returncode == 2
    assert lines[0] == f"error: {tmp_path}/smollm2_dinov2: the real pair is not there"
    assert lines[2] == "  hint: m2pt models fetch smollm2_dinov2"
    assert len(lines) == 3


def test_each_test_of_the_real_pair_is_marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An unmarked one would run with the fast tests, where no such files are."""
    for file in (ROOT / "tests/real").glob("test_*.py"):
        assert "\npytestmark = pytest.mark.real\n" in file.read_text(encoding="utf-8"), file.name
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path))
    with pytest.raises(BadInputError, match="the real pair is not there") as refused:
        pair_folder()
    assert refused.value.hint == "m2pt models fetch smollm2_dinov2"
