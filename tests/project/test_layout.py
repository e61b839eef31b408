"""House rules a reviewer should not have to check: sizes, names, docstrings, no print, package files, import rules."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("lightning_m2pt", "data_modules", "callbacks", "experiments")
PACKAGE_FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))
GUARD_LINE = (
    "import lightning_m2pt.torchvision_guard"
    "  # noqa: F401  (must run before the first Lightning import of any process)\n"
)
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
MOST_FILES = 26
MOST_ROOMS = 19
GROWING = ("benchmarks/results", "experiments")
"""Folders of one file a measurement or an experiment."""
ROOMS_OF_TESTS_ALONE = {"bad_inputs", "project", "real", "support"}
LISTED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    described = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
    return function.end_lineno - function.lineno + 1 - described


def public_definitions(tree: ast.Module) -> list[Definition]:
    """Public classes and functions, and the public methods of public classes that override nothing we can see."""
    found: list[Definition] = []
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            found.append(node)
            if isinstance(node, ast.ClassDef):
                found += [inner for inner in node.body if isinstance(inner, Definition) and inner.name[0] != "_"]
    return found


@pytest.mark.parametrize("path", PACKAGE_FILES + TEST_FILES, ids=named)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert code_lines(node) <= LONGEST_FUNCTION, f"{named(path)}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=named)
def test_package_code_prints_nothing_and_documents_what_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{named(path)}:{node.lineno}"
    for node in public_definitions(tree):
        overrides = any(isinstance(mark, ast.Name) and mark.id == "override" for mark in node.decorator_list)
        assert overrides or ast.get_docstring(node), f"{named(path)}:{node.lineno} {node.name} has no docstring"


@pytest.mark.parametrize("path", [path for path in PACKAGE_FILES if path.name == "__init__.py"], ids=named)
def test_package_files_install_the_guard_or_are_empty(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path == ROOT / "lightning_m2pt" / "__init__.py":  # the names for programs of one's own, imported when used
        assert GUARD_LINE in text
        assert "lightning_m2pt.application" in text
    else:
        assert text == (GUARD_LINE if path.parent.parent == ROOT else "")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_package(package: str) -> None:
    folders = {path.parent for path in PACKAGE_FILES if path.is_relative_to(ROOT / package)}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_no_folder_is_full() -> None:
    """Package files, which say nothing, do not count."""
    folders = Counter(str(Path(path).parent) for path in LISTED if Path(path).name != "__init__.py")
    assert not {folder for folder, count in folders.items() if count > MOST_FILES} - set(GROWING)


def test_no_link_stands_among_the_files() -> None:
    """A link in the place of a folder that each checkout fills for itself would replace what is there."""
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if line.startswith("120000")] == []


@pytest.mark.parametrize("package", ["lightning_m2pt", "experiments"])
def test_a_newcomer_sees_few_rooms(package: str) -> None:
    parts = [Path(path).parts for path in LISTED if path.startswith(f"{package}/")]
    assert len({path[1] for path in parts if len(path) > 2}) <= MOST_ROOMS


@pytest.mark.parametrize("path", [path for path in PACKAGE_FILES if path.parent.parent != ROOT], ids=named)
def test_a_file_does_not_repeat_its_rooms_name(path: Path) -> None:
    room, words = path.parent.name, path.stem.split("_")
    assert room not in words
    assert words[0] != room.rstrip("s")


def test_tests_stand_in_the_rooms_of_what_they_test() -> None:
    rooms = {path.parent.name for path in PACKAGE_FILES} | {"benchmarks"}
    tested = {Path(path).parts[1] for path in LISTED if path.startswith("tests/") and len(Path(path).parts) > 2}
    assert tested <= rooms | ROOMS_OF_TESTS_ALONE
    loose = {Path(path).name for path in LISTED if Path(path).parent == Path("tests")}
    assert loose <= {"__init__.py", "conftest.py"}


def test_import_rules_hold() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
