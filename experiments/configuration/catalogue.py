"""What comes with the project, by name: methods, sets, backbones, experiments and sweeps.

Everything is read from the files themselves, classes with ``ast`` and experiments by their first line: nothing is
imported, so that a list is there at once, and no list is written twice.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import lightning_m2pt

LIBRARY = Path(lightning_m2pt.__file__).parent
CHECKOUT = Path(__file__).parents[2]
EXPERIMENTS = CHECKOUT / "experiments"


@dataclass(frozen=True)
class Entry:
    """One thing that comes with the project.

    Attributes:
        name: How a configuration or a command names it: a class path, or a file's stem.
        about: One line about it.
        path: The file that defines it.
    """

    name: str
    about: str
    path: Path

    @property
    def short_name(self) -> str:
        """The last part of the name: of a class path the class."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class ClassSource:
    """A class as its file spells it.

    Attributes:
        path: The class's path.
        file: Its file.
        bases: Names of its bases, as written.
        abstract: Methods it declares and leaves to others.
        defined: Everything else that its body defines.
        about: Its docstring's first line.
    """

    path: str
    file: Path
    bases: tuple[str, ...]
    abstract: frozenset[str]
    defined: frozenset[str]
    about: str


def methods() -> list[Entry]:
    """Returns the methods: every class of the library's ``methods`` that can be built."""
    return complete_classes(LIBRARY / "methods", "lightning_m2pt.methods", "Method")


def backbones() -> list[Entry]:
    """Returns the backbones: every class of the library's ``backbones`` that can be built."""
    return complete_classes(LIBRARY / "backbones", "lightning_m2pt.backbones", "Backbone")


def regularisers() -> list[Entry]:
    """Returns the terms of the loss beside the cross-entropy."""
    return complete_classes(LIBRARY / "tuning" / "regularisers", "lightning_m2pt.tuning.regularisers", "Regulariser")


def teachers() -> list[Entry]:
    """Returns what judges how much a picture looks like a text."""
    return complete_classes(LIBRARY / "tuning" / "regularisers", "lightning_m2pt.tuning.regularisers", "Teacher")


def sets() -> list[Entry]:
    """Returns the data sets: every data module that can be built, for tuning and for evaluation."""
    return complete_classes(CHECKOUT / "data_modules", "data_modules", "DataModule")


def evaluation_sets() -> list[Entry]:
    """Returns the sets that models are evaluated on."""
    return complete_classes(CHECKOUT / "data_modules", "data_modules", "BenchmarkDataModule")


def experiments() -> list[Entry]:
    """Returns the experiments of ``experiments/*.yaml``."""
    return files_of(EXPERIMENTS)


def backbone_files() -> list[Entry]:
    """Returns the files of ``experiments/backbones``, which put another backbone in the place of an experiment's."""
    return files_of(EXPERIMENTS / "backbones")


def sweeps() -> list[Entry]:
    """Returns the sweeps of ``experiments/sweeps``."""
    return files_of(EXPERIMENTS / "sweeps")


def files_of(folder: Path) -> list[Entry]:
    """Returns a folder's YAML files by stem, each with its first line if that is a comment."""
    entries = []
    for path in sorted(folder.glob("*.yaml")):
        with path.open(encoding="utf-8") as lines:
            first = lines.readline().strip()
        entries.append(Entry(path.stem, first.lstrip("# ") if first.startswith("#") else "", path))
    return entries


def complete_classes(folder: Path, package: str, root: str) -> list[Entry]:
    """Returns the classes of a folder that descend from a base class and leave none of its methods open.

    Args:
        folder: The folder of modules.
        package: Its import path.
        root: Name of the base class, which stands in the folder, too.
    """
    known = {source.path.rpartition(".")[2]: source for source in classes_in(folder, package)}
    found = []
    for name, source in known.items():
        line = ancestry(name, known)
        if root in line[1:] and not open_methods(line, known):
            found.append(Entry(source.path, source.about, source.file))
    return found


def ancestry(name: str, known: dict[str, ClassSource]) -> list[str]:
    """Returns a class and its ancestors among the known ones, nearest first."""
    line = [name]
    for ancestor in line:
        line += [base for base in known[ancestor].bases if base in known and base not in line]
    return line


def open_methods(line: list[str], known: dict[str, ClassSource]) -> set[str]:
    """Returns the abstract methods that nobody in a line of classes has written."""
    left: set[str] = set()
    for name in reversed(line):
        left = (left - known[name].defined) | known[name].abstract
    return left


def classes_in(folder: Path, package: str) -> Iterable[ClassSource]:
    """Yields the public classes of a folder's modules and of the folders inside, in the order of files and lines."""
    for file in sorted(folder.rglob("*.py")):
        module = ".".join((package, *file.relative_to(folder).with_suffix("").parts))
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield class_source(node, f"{module}.{node.name}", file)


def class_source(node: ast.ClassDef, path: str, file: Path) -> ClassSource:
    """Returns what a class's syntax tree says of it."""
    functions = [inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)]
    abstract = {function.name for function in functions if is_abstract(function)}
    assigned = {
        name.id
        for inner in node.body
        if isinstance(inner, ast.Assign)
        for name in inner.targets
        if isinstance(name, ast.Name)
    }
    return ClassSource(
        path,
        file,
        tuple(base.id for base in node.bases if isinstance(base, ast.Name)),
        frozenset(abstract),
        frozenset({function.name for function in functions} - abstract | assigned),
        (ast.get_docstring(node) or "").partition("\n")[0],
    )


def is_abstract(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tells whether a method is marked with ``abstractmethod``."""
    return any(isinstance(mark, ast.Name) and mark.id == "abstractmethod" for mark in function.decorator_list)
