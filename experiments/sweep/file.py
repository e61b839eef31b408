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

beside either of which ``prompt_texts`` (``text_axis.py``) runs every row with several prompts; or the section
``transfer`` (``transfer_section.py``): prompts in pixels of several bases, each used on all of them.

An experiment is a file, named as seen from the sweep's, or goes by the name under which it comes with the project.
"""

import difflib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiments.configuration.catalogue import EXPERIMENTS
from experiments.sweep.text_axis import with_texts
from experiments.sweep.transfer_section import TransferPlan, transfer_of
from experiments.sweep.variant import (
    Variant,
    arguments_of,
    check_label,
    checked_key,
    configs_of,
    seeds_of,
)
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
NOTHING_RUNS = "neither `cells` nor `grid` nor `transfer` is here"
TOP_KEYS = ("name", "seeds", "cells", "config", "arguments", "grid", "search", "transfer", "prompt_texts")
WHAT_RUNS = ("cells", "grid", "transfer")
CELL_KEYS = ("label", "config", "arguments", "seeds", "rates_of")
SEARCH_KEYS = ("trials", "share_of_steps", "seed", "ranges")
OPTIONAL_SEARCH_KEYS = ("validation_batches",)


@dataclass(frozen=True)
class SearchPlan:
    """How learning rates are searched: the same budget for every variant.

    Attributes:
        trials: Trials a variant; the first has the rates its file states.
        share_of_steps: A trial's optimizer steps as a share of the experiment's.
        seed: Seed of every trial.
        ranges: Lowest and highest rate by pattern of parts' names; the first that fits counts.
        where: ``FILE:LINE``, for errors.
        validation_batches: Batches of the validation split that judge a trial, the first ones; 0 is the whole split.
    """

    trials: int
    share_of_steps: float
    seed: int
    ranges: Mapping[str, tuple[float, float]]
    where: str
    validation_batches: int = 0


@dataclass(frozen=True)
class SweepFile:
    """A whole sweep as its file states it.

    Attributes:
        name: Folder below ``outputs/sweeps``.
        path: The file.
        variants: Its rows.
        search: How rates are searched; None takes those of the experiments' files.
        transfer: Which prompts are used on which bases, where the variants stand in a section ``transfer``.
    """

    name: str
    path: Path
    variants: tuple[Variant, ...]
    search: SearchPlan | None
    transfer: TransferPlan | None = None


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
    given = [key for key in WHAT_RUNS if key in found]
    if len(given) != 1:
        raise BadInputError(
            f"{' and '.join(f'`{key}`' for key in given)} are both here" if given else NOTHING_RUNS,
            where=str(path),
            expected="a list of cells, a grid of keys on one config, or a transfer",
        )
    if "grid" not in found:
        for key in ("config", "arguments"):
            if key in found:
                raise BadInputError(
                    f"`{key}` belongs to `grid`", where=place(path, found[key]), expected="it inside each cell"
                )
    plan = None
    if "grid" in found:
        variants = grid_of(found, path, seeds, place(path, root))
    elif "cells" in found:
        variants = [cell_of(item, path, seeds) for item in items_of(found["cells"], path)]
    else:
        plan = transfer_of(found["transfer"], path, seeds)
        variants = [cell.variant for cell in plan.cells]
    if "prompt_texts" in found:
        if plan is not None:
            raise BadInputError(
                "`prompt_texts` stands beside `transfer`",
                where=place(path, found["prompt_texts"]),
                expected="it beside cells or a grid",
            )
        variants = with_texts(variants, found["prompt_texts"], path)
    name = text_of(found["name"], path) if "name" in found else path.stem
    check_label(name, place(path, found.get("name", root)))
    check_variants(variants)
    search = search_of(found["search"], path) if "search" in found else None
    return SweepFile(name, path, tuple(variants), search, plan)


def cell_of(node: yaml.Node, path: Path, seeds: tuple[int, ...]) -> Variant:
    """Returns one item of ``cells``."""
    found = keys_of(node, path, CELL_KEYS, ("label", "config"))
    label = text_of(found["label"], path)
    check_label(label, place(path, found["label"]))
    own_seeds = seeds_of(found["seeds"], path) if "seeds" in found else seeds
    arguments = arguments_of(found["arguments"], path) if "arguments" in found else ()
    rates_of = text_of(found["rates_of"], path) if "rates_of" in found else ""
    return Variant(label, configs_of(found["config"], path), arguments, own_seeds, place(path, node), rates_of)


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
    found = keys_of(node, path, (*SEARCH_KEYS, *OPTIONAL_SEARCH_KEYS), SEARCH_KEYS)
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
    batches = whole_number(found["validation_batches"], path) if "validation_batches" in found else 0
    if "validation_batches" in found and batches < 1:
        raise BadInputError(
            f"{batches} batches judge nothing",
            where=place(path, found["validation_batches"]),
            expected="1 or more; without the key the whole validation split",
        )
    return SearchPlan(trials, share, seed, ranges, place(path, node), batches)


def check_variants(variants: Sequence[Variant]) -> None:
    """Refuses two variants of one label, or of the same settings, and rates of a variant that searches none.

    Raises:
        BadInputError: Naming the second, or the one that takes the rates.
    """
    labels: dict[str, str] = {}
    settings: dict[tuple[object, ...], str] = {}
    for variant in variants:
        key = (variant.configs, variant.arguments, variant.prompt_text)
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
    searched = {variant.label for variant in variants if not variant.rates_of}
    for variant in variants:
        if variant.rates_of and variant.rates_of not in searched:
            raise BadInputError(
                f"{variant.label!r} takes the rates of {variant.rates_of!r:.60}, which has no search of its own",
                where=f"{variant.where}: rates_of",
                expected="another cell's label: " + ", ".join(sorted(searched)),
            )
