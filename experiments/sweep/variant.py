"""One row of a sweep's table: an experiment, what is changed in it, and its seeds, read from a sweep's file."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiments.configuration.catalogue import EXPERIMENTS
from experiments.configuration.parts import experiment_file, files_of_words
from lightning_m2pt.configuration.paths import from_here
from lightning_m2pt.configuration.yaml_nodes import items_of, pairs_of, place, text_of, whole_number, word_of
from lightning_m2pt.errors import BadInputError

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.,=+-]{0,79}")
"""A label is part of file names."""
DOTTED_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
SET_BY_THE_SWEEP = {
    "config": "the cell's own key `config`",
    "seed_everything": "the key `seeds`",
    "output_root": "m2pt sweep run --output_root DIR",
    "force": "m2pt train --force on the one run",
    "run": "nothing: a run's folder follows from its settings",
}


@dataclass(frozen=True)
class Variant:
    """One row of the sweep's table: an experiment, what is changed in it, and its seeds.

    Attributes:
        label: What the table calls it.
        configs: Configuration files, as seen from the working directory; later ones win.
        arguments: Further command-line words, ``--key=value``.
        seeds: One run each.
        where: ``FILE:LINE``, for errors.
        rates_of: Label of the variant whose searched rates it takes; empty if a search of its own chooses them.
        prompt_text: File of a prompt's words around every question; None leaves them to the experiment.
    """

    label: str
    configs: tuple[Path, ...]
    arguments: tuple[str, ...]
    seeds: tuple[int, ...]
    where: str
    rates_of: str = ""
    prompt_text: Path | None = None

    @property
    def searched(self) -> str:
        """Label of the variant whose search chooses its rates: usually its own."""
        return self.rates_of or self.label

    @property
    def text_files(self) -> tuple[Path, ...]:
        """Files with words that are no configuration: a prompt's, where there is one."""
        return () if self.prompt_text is None else (self.prompt_text,)

    @property
    def other_files(self) -> tuple[Path, ...]:
        """Files that decide beside configurations: words around questions, and the YAML files that arguments name."""
        return (*self.text_files, *files_of_words(self.arguments))


def check_label(label: str, where: str) -> None:
    """Refuses a label that is no part of a file name.

    Raises:
        BadInputError: If it is none.
    """
    if not LABEL.fullmatch(label):
        raise BadInputError(
            f"{label!r:.60} is no label", where=where, expected="letters, digits, spaces and _.,=+- (at most 80)"
        )


def configs_of(node: yaml.Node, path: Path) -> tuple[Path, ...]:
    """Returns one configuration file or several, all of which are there."""
    nodes = items_of(node, path) if isinstance(node, yaml.SequenceNode) else [node]
    return tuple(config_of(text_of(one, path), path, place(path, one)) for one in nodes)


def config_of(word: str, path: Path, where: str) -> Path:
    """Returns the configuration file that a word names, as seen from the working directory.

    Args:
        word: A path as seen from the sweep's file, or the name of an experiment that comes with the project.
        path: The sweep's file.
        where: Its line, for errors.

    Raises:
        BadInputError: If there is no such file.
    """
    beside, shipped = path.parent / word, experiment_file(word)
    found = shipped if shipped != Path(word) and not beside.exists() else beside
    if found.is_file():
        return from_here(found)
    near = difflib.get_close_matches(Path(word).stem, sorted(other.stem for other in EXPERIMENTS.glob("*.yaml")), n=1)
    hint = f"did you mean {near[0]}?" if near else ""
    if Path(word).is_file():
        hint = f"it is there as seen from the working directory: write {os.path.relpath(word, path.parent)}"
    raise BadInputError(
        f"there is no file {word}",
        where=where,
        expected="an experiment's YAML file, as seen from this one, or the name of one that comes with the project",
        hint=hint,
    )


def arguments_of(node: yaml.Node, path: Path) -> tuple[str, ...]:
    """Returns dotted keys with values as command-line words."""
    return tuple(f"--{checked_key(key, path)}={word_of(value, path)}" for key, value in pairs_of(node, path))


def checked_key(node: yaml.ScalarNode, path: Path) -> str:
    """Returns a key as the command line takes it.

    Raises:
        BadInputError: If it is none, or the sweep itself sets it.
    """
    key = str(node.value)
    if not DOTTED_KEY.fullmatch(key):
        raise BadInputError(
            f"{key!r:.60} is no key", where=place(path, node), expected="such as model.method.visual_length"
        )
    if key in SET_BY_THE_SWEEP:
        raise BadInputError("a sweep sets this itself", where=place(path, node), expected=SET_BY_THE_SWEEP[key])
    return key


def seeds_of(node: yaml.Node, path: Path) -> tuple[int, ...]:
    """Returns different whole numbers."""
    seeds = [whole_number(item, path) for item in items_of(node, path)]
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadInputError(f"seeds {seeds}", where=place(path, node), expected="one or more, every seed once")
    return tuple(seeds)
