"""What comes with the project is found without importing it, and is what importing it would find."""

import importlib
import inspect
from pathlib import Path

import pytest

from data_modules.base import DataModule
from data_modules.benchmark import BenchmarkDataModule
from experiments.configuration import catalogue
from experiments.configuration.catalogue import complete_classes
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.base import Method


def imported(package: str, base: type) -> list[str]:
    """Paths of a package's classes that descend from a base and can be built, found by importing them."""
    folder = Path(importlib.import_module(package).__file__).parent
    found = []
    for path in sorted(folder.rglob("*.py")):
        module = importlib.import_module(".".join((package, *path.relative_to(folder).with_suffix("").parts)))
        for value in vars(module).values():
            is_own = inspect.isclass(value) and value.__module__ == module.__name__
            if is_own and issubclass(value, base) and value is not base and not inspect.isabstract(value):
                found.append(f"{value.__module__}.{value.__name__}")
    return found


@pytest.mark.parametrize(
    ("listed", "package", "base"),
    [
        (catalogue.methods, "lightning_m2pt.methods", Method),
        (catalogue.backbones, "lightning_m2pt.backbones", Backbone),
        (catalogue.sets, "data_modules", DataModule),
        (catalogue.evaluation_sets, "data_modules", BenchmarkDataModule),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_classes_are_those_that_importing_finds(listed, package, base):
    assert sorted(entry.name for entry in listed()) == sorted(imported(package, base))


@pytest.mark.parametrize(
    "listed",
    [catalogue.methods, catalogue.backbones, catalogue.sets, catalogue.experiments, catalogue.sweeps],
    ids=lambda listed: listed.__name__,
)
def test_everything_says_in_one_line_what_it_is(listed):
    entries = listed()
    assert entries
    for entry in entries:
        assert entry.about.strip() == entry.about != "", entry
        assert entry.path.is_file()


def test_experiments_and_sweeps_go_by_their_files_names():
    names = [entry.name for entry in catalogue.experiments()]
    assert "m2pt_base" in names
    assert names == sorted(names)
    named = [entry.name for entry in catalogue.sweeps()]
    pair = ["smollm2", "smollm2_attempts", "smollm2_lengths", "smollm2_longer", "smollm2_lora"]
    assert named == ["ablation", "comparison", "lengths", "patch12", "prompt_transfer", *pair, "templates_methods"]


def test_a_class_that_leaves_a_method_open_is_not_listed(tmp_path):
    (tmp_path / "a.py").write_text(
        "class Base:\n"
        "    @abstractmethod\n    def one(self): ...\n"
        "    @abstractmethod\n    def two(self): ...\n"
        "class Half(Base):\n    def one(self): ...\n"
        "class _Private(Base):\n    def one(self): ...\n    def two(self): ...\n"
    )
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "b.py").write_text(
        'class Whole(Half):\n    """Says two words.\n\n    And more.\n    """\n    def two(self): ...\n'
        "class Other:\n    def two(self): ...\n"
    )
    assert [(entry.name, entry.about) for entry in complete_classes(tmp_path, "p", "Base")] == [
        ("p.inside.b.Whole", "Says two words.")
    ]


def test_a_base_is_not_listed_and_an_assignment_closes_what_it_left_open(tmp_path):
    (tmp_path / "a.py").write_text(
        "class Base:\n    def one(self): ...\n"
        "class Open(Base):\n    @abstractmethod\n    def two(self): ...\n"
        "class Closed(Open):\n    two = Base.one\n"
    )
    assert [entry.name for entry in complete_classes(tmp_path, "p", "Base")] == ["p.a.Closed"]


def test_a_first_line_that_is_no_comment_says_nothing(tmp_path):
    (tmp_path / "one.yaml").write_text("trainer: {}  # no\n# and no\n")
    (tmp_path / "two.yaml").write_text("#  Two words.\ntrainer: {}\n")
    (tmp_path / "three.yml").write_text("# Another ending.\n")
    assert [(entry.name, entry.about) for entry in catalogue.files_of(tmp_path)] == [("one", ""), ("two", "Two words.")]
