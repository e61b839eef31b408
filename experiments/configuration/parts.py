"""Reads experiment files that are put together from parts.

A file may begin with ``include: [FILE, ...]``: experiments' files, or shared pieces of some, that are read first; the
file's own keys go on top, as those of a later ``--config`` would. And where a group of settings, a component or a list
of components stands, the name of a YAML file may stand: what that file holds takes the name's place.

    include: [parts/testbed.yaml]
    data: my_data.yaml                       class_path and init_args
    benchmarks: [parts/testbed_benchmarks.yaml, my_set.yaml]

A part is named as seen from the file that names it. Everything happens on YAML trees, whose marks say file and line.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from experiments.configuration.catalogue import EXPERIMENTS
from experiments.configuration.composition import COMPONENTS, GROUPS, LISTS, CommandLine, Setting, read_words
from lightning_m2pt.configuration.paths import values_of_files, without_dots
from lightning_m2pt.configuration.recorded import recorded_tree
from lightning_m2pt.configuration.strict_yaml import check_keys, composed, read_mapping, read_tree, refuse_tricks
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_PATH, TOP_LEVEL_KEYS
from lightning_m2pt.configuration.yaml_nodes import place
from lightning_m2pt.errors import BadInputError

INCLUDE = "include"
MOST_FILES = 100
PLACES = frozenset({*GROUPS, *COMPONENTS, *LISTS, "trainer.logger", "trainer.strategy", "trainer.profiler"} - {""})
"""Keys in whose value's place a file's name may stand."""
FILE_NAME = re.compile(r".*\.ya?ml", re.DOTALL)
COMMAND_LINE = Path("command line")


@dataclass
class PartReader:
    """Reads everything that one command names, and knows what is being read.

    Attributes:
        files: What was read, in order.
        inside: The files that are being read, each named by the one before.
    """

    files: list[Path] = field(default_factory=list)
    inside: list[Path] = field(default_factory=list)

    def experiment(self, path: Path, named_at: str = "") -> list[yaml.Node]:
        """Returns the trees of an experiment's file in the order in which they are put together, its own last.

        Args:
            path: The file.
            named_at: Where it is named, if another file or a key does.

        Raises:
            BadInputError: If it, or one it names, is missing, wrong or names itself.
        """
        with self.reading(path, named_at):
            node = read_mapping(path)
            trees, own = [], []
            for key, value in node.value:
                if key.value == CLASS_PATH:
                    raise BadInputError(
                        "this is one component, and no experiment",
                        where=place(path, key),
                        expected=f"keys such as {', '.join(TOP_LEVEL_KEYS[1:5])}",
                        hint=f"name the file where its component stands, as in data: {path.name}",
                    )
                if key.value == INCLUDE:
                    for item in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                        trees += self.experiment(part_path(item, path), f"{place(path, item)}: {INCLUDE}")
                else:
                    own.append((key, self.with_parts(value, str(key.value), path)))
            node.value = own
        return [*trees, node]

    def with_parts(self, node: yaml.Node, key: str, path: Path) -> yaml.Node:
        """Returns a value with every part in the place of its name.

        Args:
            node: The value.
            key: Its dotted key, without ``init_args``.
            path: The file it stands in.

        Raises:
            BadInputError: If a part is missing, wrong or names itself.
        """
        if key in PLACES and isinstance(node, yaml.ScalarNode) and FILE_NAME.fullmatch(node.value):
            return self.part(node, key, path)
        if isinstance(node, yaml.MappingNode):
            node.value = [(name, self.value_inside(value, key, str(name.value), path)) for name, value in node.value]
        elif isinstance(node, yaml.SequenceNode) and key in LISTS:
            node.value = [part for item in node.value for part in self.items(item, key, path)]
        return node

    def value_inside(self, node: yaml.Node, key: str, name: str, path: Path) -> yaml.Node:
        """Returns the value of a mapping's key with parts in place; a file never stands for arguments alone."""
        if name != ARGUMENTS:
            return self.with_parts(node, f"{key}.{name}", path)
        return node if isinstance(node, yaml.ScalarNode) else self.with_parts(node, key, path)

    def items(self, node: yaml.Node, key: str, path: Path) -> list[yaml.Node]:
        """Returns an item of a list of components, or all of those that a part in its place lists."""
        found = self.with_parts(node, key, path)
        return list(found.value) if found is not node and isinstance(found, yaml.SequenceNode) else [found]

    def part(self, node: yaml.ScalarNode, key: str, path: Path) -> yaml.Node:
        """Returns what the file that a value names holds, its own parts in place.

        Raises:
            BadInputError: If it is missing, or nothing that can stand there.
        """
        named_at = f"{place(path, node)}: {key}" if path != COMMAND_LINE else f"{path}: {key}"
        part = part_path(node, path)
        with self.reading(part, named_at):
            return self.with_parts(checked_part(read_tree(part), key, part, named_at), key, part)

    @contextmanager
    def reading(self, path: Path, named_at: str) -> Iterator[None]:
        """Holds while a file is read.

        Raises:
            BadInputError: If it is not there, is being read already, or one of too many.
        """
        if path.resolve() in [other.resolve() for other in self.inside]:
            chain = " -> ".join(other.name for other in [*self.inside, path])
            raise BadInputError(f"{path.name} is a part of itself: {chain}", where=named_at, expected="no circle")
        if len(self.files) >= MOST_FILES:
            raise BadInputError(
                f"more than {MOST_FILES} files", where=named_at or str(path), expected="an experiment of few parts"
            )
        if not path.exists():
            raise missing(path, named_at)
        self.files.append(path)
        self.inside.append(path)
        try:
            yield
        finally:
            self.inside.pop()

    def of_words(self, settings: Sequence[Setting]) -> tuple[Setting, ...]:
        """Returns the command line's settings, with the trees of those that name parts or are written as YAML.

        Raises:
            BadInputError: If a part is missing or wrong, or a text is no YAML of plain values.
        """
        return tuple(replace(setting, node=self.node_of(setting)) for setting in settings)

    def node_of(self, setting: Setting) -> yaml.Node | None:
        """Returns the tree of a setting that names a part, or is a mapping or list; None for any other text."""
        if setting.key in PLACES and FILE_NAME.fullmatch(setting.text):
            return self.with_parts(yaml.ScalarNode("", setting.text), setting.key, COMMAND_LINE)
        if not setting.text.lstrip().startswith(("{", "[")):
            return None
        try:
            refuse_tricks(setting.text)
            node = composed(setting.text, "")
        except yaml.MarkedYAMLError as error:
            raise BadInputError(
                str(error.problem), where=f"{COMMAND_LINE}: {setting.key}", expected="YAML or JSON of plain values"
            ) from error
        if node is None:
            return None
        check_keys(node, COMMAND_LINE)
        return self.with_parts(node, setting.key, COMMAND_LINE)


def part_path(node: yaml.Node, path: Path) -> Path:
    """Returns the file that a value names, as seen from the file it stands in.

    Raises:
        BadInputError: If it is no name of a YAML file.
    """
    if not isinstance(node, yaml.ScalarNode) or not FILE_NAME.fullmatch(node.value):
        raise BadInputError(
            "this names no part",
            where=place(path, node),
            expected="a YAML file, as seen from this one, or several",
        )
    folder = Path() if path == COMMAND_LINE else path.parent
    return without_dots(folder / node.value)


def checked_part(tree: yaml.Node | None, key: str, path: Path, named_at: str) -> yaml.Node:
    """Returns what a part holds.

    Args:
        tree: It; None if it is empty.
        key: The dotted key it stands for.
        path: The part.
        named_at: Where it is named.

    Raises:
        BadInputError: If it is nothing that can stand there.
    """
    names = {name.value for name, _ in tree.value} if isinstance(tree, yaml.MappingNode) else set()
    if names and names <= {*TOP_LEVEL_KEYS, INCLUDE}:
        raise BadInputError(
            f"this cannot stand for {key}: it holds an experiment's keys",
            where=str(path),
            expected="its keys, such as class_path and init_args",
            hint=f"{named_at}: name the file under `{INCLUDE}:`, or with --config",
        )
    if INCLUDE in names:
        raise BadInputError(
            f"a part that stands for {key} includes nothing",
            where=str(path),
            expected="its keys, such as class_path and init_args",
            hint=f"{named_at}: write what is changed there, beside an `{INCLUDE}` of the whole",
        )
    if isinstance(tree, yaml.MappingNode) or (key in LISTS and isinstance(tree, yaml.SequenceNode)):
        return tree
    raise BadInputError(
        f"nothing in it can stand for {key}",
        where=str(path),
        expected="a component or a list of some" if key in LISTS else "its keys, such as class_path and init_args",
        hint=f"named at {named_at}",
    )


def missing(path: Path, named_at: str) -> BadInputError:
    """Returns the error about a file that is not there, with the nearest one that is."""
    beside = [other.name for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, sorted(beside), n=1)
    shipped = difflib.get_close_matches(path.stem, sorted(other.stem for other in EXPERIMENTS.glob("*.yaml")), n=1)
    hint = ""
    if named_at and Path(path.name).exists():
        hint = f"the working directory has a {path.name}: write its path as seen from the file that names it"
    elif near:
        hint = f"did you mean {path.parent / near[0]}?"
    elif not named_at and shipped:
        hint = f"did you mean {shipped[0]}? `m2pt list experiments` tells what comes with the project"
    return BadInputError(
        f"there is no file {path}" if named_at else "there is no such file",
        where=named_at or str(path),
        expected="a part, as seen from the file that names it" if named_at else "an experiment's YAML file",
        hint=hint,
    )


def experiment_file(word: str) -> Path:
    """Returns the file that a word names: a path, or the name of an experiment that comes with the project."""
    path, shipped = Path(word), EXPERIMENTS / f"{word}.yaml"
    return shipped if re.fullmatch(r"\w+", word) and not path.exists() and shipped.is_file() else path


@dataclass(frozen=True)
class Sources:
    """What the files and words of a command hold, parts in place.

    Attributes:
        trees: Values of files, later ones win.
        settings: What words set on top.
        written: The same as YAML trees, each with the key that it is the value of: where a key stands.
    """

    trees: list[Any]
    settings: tuple[Setting, ...]
    written: list[tuple[str, yaml.Node]]


def read_sources(command: CommandLine, *, was_run: bool = False) -> Sources:
    """Reads the files that a command line names.

    Args:
        command: The command line.
        was_run: Whether the first file is what a run keeps, which has no parts.

    Raises:
        BadInputError: If a file, or one it names, is missing or wrong.
    """
    reader, files = PartReader(), [experiment_file(word) for word in command.files]
    recorded = files[:1] if was_run else []
    nodes = [node for path in files[len(recorded) :] for node in reader.experiment(path)]
    settings = reader.of_words(command.settings)
    written = [("", node) for node in [*map(read_mapping, recorded), *nodes]]
    written += [(setting.key, setting.node) for setting in settings if setting.node is not None]
    return Sources([*map(recorded_tree, recorded), *map(values_of_files, nodes)], settings, written)


def files_of(path: Path) -> list[Path]:
    """Returns an experiment's file and all of its parts, in the order in which they are read, then what they name.

    Raises:
        BadInputError: If one of them is missing or wrong.
    """
    reader = PartReader()
    nodes = reader.experiment(path)
    return [*reader.files, *(named for node in nodes for named in named_files(node))]


def files_of_words(words: Sequence[str]) -> list[Path]:
    """Returns the parts that settings of a command line name, their own parts, and what all of these name.

    Args:
        words: Settings alone, ``--KEY=VALUE``.

    Raises:
        BadInputError: If a part is missing or wrong.
    """
    reader = PartReader()
    settings = reader.of_words(read_words(words).settings)
    nodes = [setting.node or yaml.ScalarNode("", setting.text) for setting in settings]
    return [*reader.files, *(named for node in nodes for named in named_files(node))]


def named_files(node: yaml.Node) -> Iterator[Path]:
    """Yields the YAML files that are there and that a tree's values name beside its parts, such as templates."""
    if isinstance(node, yaml.ScalarNode):
        file = node.start_mark.name if node.start_mark is not None else ""
        named = without_dots(Path(file).parent / node.value)
        if FILE_NAME.fullmatch(node.value) and named.is_file():
            yield named
    else:
        for child in node.value:
            yield from named_files(child[1] if isinstance(node, yaml.MappingNode) else child)
