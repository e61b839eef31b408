"""Reads the section ``transfer`` of a sweep's file: prompts in pixels, trained on several bases and used on all.

    transfer:
      answer: likelihood_sum                 how every question is answered
      bases: {A: ../backbones/testbed.yaml, B: ../backbones/testbed_patch12.yaml}
      sets: {cifar10: ../parts/prompting_cifar10.yaml, mnist: ../parts/prompting_mnist.yaml}
      search_on: cifar10                     the other sets take its rates; without it every cell is searched
      random_like: tvp                       beside this row's prompts a random one of equal norm
      rows:
        - {label: evp, config: evp_base}
        - {label: tse, config: {A: my_tse.yaml, B: [my_tse.yaml, my_teacher_of_b.yaml]}}
        - {label: evp shrunk, config: evp_base, arguments: {model.method.compose: shrink}, sets: [cifar10], seeds: [0],
           rates_of: evp}
      means: [{row: evp, set: cifar10}]      also the mean of the seeds' prompts, and of the bases'

Every row is trained on every set and base with every seed: a cell with the files of its row, its set and its base;
later ones win. A row may have other files for every base, such as those with a teacher that is not the target. A set's
file names the data to train on and one evaluation set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiments.sweep.variant import Variant, arguments_of, check_label, config_of, configs_of, seeds_of
from lightning_m2pt.configuration.yaml_nodes import items_of, keys_of, pairs_of, place, text_of
from lightning_m2pt.errors import BadInputError

KEYS = ("answer", "bases", "sets", "search_on", "random_like", "rows", "means")
ROW_KEYS = ("label", "config", "arguments", "sets", "seeds", "rates_of")
ANSWERS = ("greedy", "likelihood_sum", "likelihood_mean")
"""Of ``m2pt transfer --answer``, whose import would load torch; a test compares them."""


@dataclass(frozen=True)
class TransferCell:
    """What is trained for one row, set and base.

    Attributes:
        row: The row's label.
        set: The set's name.
        base: The base's name.
        variant: Its variant, one run a seed.
    """

    row: str
    set: str
    base: str
    variant: Variant


@dataclass(frozen=True)
class TransferPlan:
    """Which prompts are used on which bases.

    Attributes:
        answer: How questions are answered.
        bases: File of every base.
        sets: File of every set.
        rows: The rows' labels, in the order of the file.
        cells: What is trained.
        random_like: The row beside whose prompts random ones are shown; empty for none.
        means: Row and set of the prompts whose means are used as well.
    """

    answer: str
    bases: Mapping[str, Path]
    sets: Mapping[str, Path]
    rows: tuple[str, ...]
    cells: tuple[TransferCell, ...]
    random_like: str
    means: tuple[tuple[str, str], ...]

    @property
    def seeds(self) -> list[int]:
        """All seeds, in the order in which they are run."""
        return list(dict.fromkeys(seed for cell in self.cells for seed in cell.variant.seeds))


def transfer_of(node: yaml.Node, path: Path, seeds: tuple[int, ...]) -> TransferPlan:
    """Returns the section ``transfer``.

    Args:
        node: The section.
        path: The sweep's file.
        seeds: Seeds of the rows that name none.

    Raises:
        BadInputError: Naming file and line of the first thing that is wrong.
    """
    found = keys_of(node, path, KEYS, ("answer", "bases", "sets", "rows"))
    bases, sets = files_of(found["bases"], path), files_of(found["sets"], path)
    answer = one_of(found["answer"], path, ANSWERS)
    if len(bases) < 2:
        raise BadInputError("one base", where=place(path, found["bases"]), expected="two or more: source and targets")
    search_on = one_of(found["search_on"], path, list(sets)) if "search_on" in found else ""
    cells: list[TransferCell] = []
    rows: list[str] = []
    for item in items_of(found["rows"], path):
        cells += cells_of(item, path, seeds, bases, sets, search_on)
        rows.append(cells[-1].row)
    trained = {(cell.row, cell.set) for cell in cells}
    means = []
    for item in items_of(found["means"], path) if "means" in found else []:
        named = keys_of(item, path, ("row", "set"), ("row", "set"))
        pair = one_of(named["row"], path, rows), one_of(named["set"], path, list(sets))
        if pair not in trained:
            raise BadInputError(
                f"{pair[0]} is not trained on {pair[1]}", where=place(path, item), expected="a set of the row's"
            )
        means.append(pair)
    random_like = one_of(found["random_like"], path, rows) if "random_like" in found else ""
    return TransferPlan(answer, bases, sets, tuple(rows), tuple(cells), random_like, tuple(means))


def cells_of(
    node: yaml.Node,
    path: Path,
    seeds: tuple[int, ...],
    bases: Mapping[str, Path],
    sets: Mapping[str, Path],
    search_on: str,
) -> list[TransferCell]:
    """Returns what is trained for one item of ``rows``."""
    found = keys_of(node, path, ROW_KEYS, ("label", "config"))
    row = text_of(found["label"], path)
    check_label(row, place(path, found["label"]))
    configs = files_by_base(found["config"], path, bases)
    arguments = arguments_of(found["arguments"], path) if "arguments" in found else ()
    own_seeds = seeds_of(found["seeds"], path) if "seeds" in found else seeds
    own_sets = [one_of(each, path, list(sets)) for each in items_of(found["sets"], path)] if "sets" in found else sets
    lender = text_of(found["rates_of"], path) if "rates_of" in found else row
    # Without its own cell on the set that is searched a row is searched by itself; a lender's row has one.
    searched = search_on if "rates_of" in found or search_on in own_sets else ""
    cells = []
    for name in dict.fromkeys(own_sets):
        for base, file in bases.items():
            label = label_of(row, name, base)
            check_label(label, place(path, node))
            lent = label_of(lender, searched or name, base)
            variant = Variant(
                label,
                (*configs[base], sets[name], file),
                arguments,
                own_seeds,
                place(path, node),
                lent if lent != label else "",
            )
            cells.append(TransferCell(row, name, base, variant))
    return cells


def files_by_base(node: yaml.Node, path: Path, bases: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Returns a row's files for every base, from one or a list for all, or from a mapping.

    Raises:
        BadInputError: If a base has none, or a name is no base's.
    """
    if not isinstance(node, yaml.MappingNode):
        return dict.fromkeys(bases, configs_of(node, path))
    found = {str(key.value): configs_of(value, path) for key, value in pairs_of(node, path)}
    if set(found) != set(bases):
        raise BadInputError(
            f"files of {', '.join(found)}", where=place(path, node), expected=f"one for each of {', '.join(bases)}"
        )
    return found


def label_of(row: str, name: str, base: str) -> str:
    """Returns the label of what is trained for a row on a set and a base."""
    return f"{row} {name} {base}"


def files_of(node: yaml.Node, path: Path) -> dict[str, Path]:
    """Returns configuration files by name.

    Raises:
        BadInputError: If a name is no label, or a file is not there.
    """
    files = {}
    for key, value in pairs_of(node, path):
        check_label(str(key.value), place(path, key))
        files[str(key.value)] = config_of(text_of(value, path), path, place(path, value))
    return files


def one_of(node: yaml.Node, path: Path, known: Sequence[str]) -> str:
    """Returns a word that is one of those that are known.

    Raises:
        BadInputError: If it is not.
    """
    word = text_of(node, path)
    if word not in known:
        raise BadInputError(f"{word!r:.60} is none", where=place(path, node), expected="one of " + ", ".join(known))
    return word
