"""Reads a sweep's YAML file: which experiments are run, with which changes and seeds, and how rates are searched.

    name: lengths                                the folder outputs/sweeps/NAME; without it the file's name
    seeds: [0, 1, 2]
    config: m2pt_base                            a grid: every combination of values on one experiment
    grid:
      model.method.visual_length: [0, 5, 10]
      model.method.textual_length: [0, 5, 10]

or, in the place of ``config`` and ``grid``, a list:

    cells:
      - {label: LoRA, config: my_lora.yaml, seeds: [0, 1, 2, 3, 4]}
      - label: no textual prompts
        config: m2pt_base
        arguments: {model.method.textual_length: 0}

An experiment is a file, named as seen from the sweep's, or goes by the name under which it comes with the project.
"""

import difflib
import itertools
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiments.configuration.catalogue import EXPERIMENTS
from experiments.configuration.parts import experiment_file
from lightning_m2pt.configuration.paths import from_here
from lightning_m2pt.configuration.strict_yaml import read_mapping
from lightning_m2pt.configuration.yaml_nodes import (
    items_of,
    keys_of,
    number_of,
    pairs_of,
    place,
    text_of,
    whole_number,
    word_of,
)
from lightning_m2pt.errors import BadInputError

SWEEPS = EXPERIMENTS / "sweeps"
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
TOP_KEYS = ("name", "seeds", "cells", "config", "arguments", "grid", "search")
CELL_KEYS = ("label", "config", "arguments", "seeds")
SEARCH_KEYS = ("trials", "share_of_steps", "seed", "ranges")


@dataclass(frozen=True)
class Variant:
    """One row of the sweep's table: an experiment, what is changed in it, and its seeds.

    Attributes:
        label: What the table calls it.
        configs: Configuration files, as seen from the working directory; later ones win.
        arguments: Further command-line words, ``--key=value``.
        seeds: One run each.
        where: ``FILE:LINE``, for errors.
    """

    label: str
    configs: tuple[Path, ...]
    arguments: tuple[str, ...]
    seeds: tuple[int, ...]
    where: str


@dataclass(frozen=True)
class SearchPlan:
    """How learning rates are searched: the same budget for every variant.

    Attributes:
        trials: Trials a variant; the first has the rates its file states.
        share_of_steps: A trial's optimizer steps as a share of the experiment's.
        seed: Seed of every trial.
        ranges: Lowest and highest rate by pattern of parts' names; the first that fits counts.
        where: ``FILE:LINE``, for errors.
    """

    trials: int
    share_of_steps: float
    seed: int
    ranges: Mapping[str, tuple[float, float]]
    where: str


@dataclass(frozen=True)
class SweepFile:
    """A whole sweep as its file states it.

    Attributes:
        name: Folder below ``outputs/sweeps``.
        path: The file.
        variants: Its rows.
        search: How rates are searched; None takes those of the experiments' files.
    """

    name: str
    path: Path
    variants: tuple[Variant, ...]
    search: SearchPlan | None


def shipped_sweeps() -> list[Path]:
    """Returns the files of ``experiments/sweeps``."""
    return sorted(SWEEPS.glob("*.yaml"))


def find_sweep(word: str) -> Path:
    """Returns the file of a path or of the name of a shipped sweep.

    Raises:
        BadInputError: If there is none.
    """
    shipped = SWEEPS / f"{word}.yaml"
    if Path(word).is_file() or not shipped.is_file():
        if not Path(word).is_file():
            names = [path.stem for path in shipped_sweeps()]
            near = difflib.get_close_matches(Path(word).stem, names, n=1)
            raise BadInputError(
                "there is no such file",
                where=word,
                expected=f"a sweep's YAML file, or one of {', '.join(names)}",
                hint=f"did you mean {near[0]}?" if near else "`m2pt sweep list` tells what each is for",
            )
        return Path(word)
    return shipped


def read_sweep(path: Path) -> SweepFile:
    """Reads and checks a sweep's file; loads and runs nothing.

    Raises:
        BadInputError: Naming file, line and key of the first thing that is wrong.
    """
    root = read_mapping(path)
    found = keys_of(root, path, TOP_KEYS, ("seeds",))
    seeds = seeds_of(found["seeds"], path)
    if ("cells" in found) == ("grid" in found):
        raise BadInputError(
            "`cells` and `grid` are both here" if "cells" in found else "neither `cells` nor `grid` is here",
            where=str(path),
            expected="a list of cells, or a grid of keys on one config",
        )
    if "cells" in found:
        for key in ("config", "arguments"):
            if key in found:
                raise BadInputError(
                    f"`{key}` belongs to `grid`", where=place(path, found[key]), expected="it inside each cell"
                )
        variants = [cell_of(item, path, seeds) for item in items_of(found["cells"], path)]
    else:
        variants = grid_of(found, path, seeds, place(path, root))
    name = text_of(found["name"], path) if "name" in found else path.stem
    check_label(name, place(path, found.get("name", root)))
    check_variants(variants)
    search = search_of(found["search"], path) if "search" in found else None
    return SweepFile(name, path, tuple(variants), search)


def cell_of(node: yaml.Node, path: Path, seeds: tuple[int, ...]) -> Variant:
    """Returns one item of ``cells``."""
    found = keys_of(node, path, CELL_KEYS, ("label", "config"))
    label = text_of(found["label"], path)
    check_label(label, place(path, found["label"]))
    own_seeds = seeds_of(found["seeds"], path) if "seeds" in found else seeds
    arguments = arguments_of(found["arguments"], path) if "arguments" in found else ()
    return Variant(label, configs_of(found["config"], path), arguments, own_seeds, place(path, node))


def grid_of(found: Mapping[str, yaml.Node], path: Path, seeds: tuple[int, ...], where: str) -> list[Variant]:
    """Returns every combination of a grid's values, the last key changing fastest."""
    if "config" not in found:
        raise BadInputError("`config` is missing", where=where, expected="the experiment that the grid changes")
    configs = configs_of(found["config"], path)
    common = arguments_of(found["arguments"], path) if "arguments" in found else ()
    axes: dict[str, list[str]] = {}
    for key, value in pairs_of(found["grid"], path):
        axes[checked_key(key, path)] = [word_of(item, path) for item in items_of(value, path)]
    if not axes:
        raise BadInputError("the grid is empty", where=place(path, found["grid"]), expected="key: [values]")
    last_parts = Counter(key.rpartition(".")[2] for key in axes)
    names = {key: last if last_parts[last := key.rpartition(".")[2]] == 1 else key for key in axes}
    variants = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        label = ",".join(f"{names[key]}={value}" for key, value in chosen.items())
        check_label(label, place(path, found["grid"]))
        words = tuple(f"--{key}={value}" for key, value in chosen.items())
        variants.append(Variant(label, configs, (*common, *words), seeds, place(path, found["grid"])))
    return variants


def search_of(node: yaml.Node, path: Path) -> SearchPlan:
    """Returns the section ``search``."""
    found = keys_of(node, path, SEARCH_KEYS, SEARCH_KEYS)
    trials, seed = whole_number(found["trials"], path), whole_number(found["seed"], path)
    share = number_of(found["share_of_steps"], path)
    if trials < 1:
        raise BadInputError(f"{trials} trials", where=place(path, found["trials"]), expected="1 or more")
    if not 0.0 < share <= 1.0:
        raise BadInputError(f"{share:g} is no share", where=place(path, found["share_of_steps"]), expected="0 < s <= 1")
    ranges = {}
    for key, value in pairs_of(found["ranges"], path):
        bounds = [number_of(item, path) for item in items_of(value, path)]
        if len(bounds) != 2 or not 0.0 < bounds[0] < bounds[1]:
            raise BadInputError(
                "this is no range of rates", where=place(path, value), expected="[lowest, highest], both above 0"
            )
        ranges[key.value] = (bounds[0], bounds[1])
    return SearchPlan(trials, share, seed, ranges, place(path, node))


def check_variants(variants: Sequence[Variant]) -> None:
    """Refuses two variants of one label, or of the same settings.

    Raises:
        BadInputError: Naming the second.
    """
    labels: dict[str, str] = {}
    settings: dict[tuple[tuple[Path, ...], tuple[str, ...]], str] = {}
    for variant in variants:
        key = (variant.configs, variant.arguments)
        if variant.label in labels:
            raise BadInputError(
                f"the label {variant.label!r} is also at {labels[variant.label]}",
                where=variant.where,
                expected="every label once",
            )
        if key in settings:
            raise BadInputError(
                f"{variant.label!r} is the same as {settings[key]!r}",
                where=variant.where,
                expected="every setting once; `seeds` says how often it runs",
            )
        labels[variant.label], settings[key] = variant.where, variant.label


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
