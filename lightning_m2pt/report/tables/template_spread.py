"""How much the words around a question alone change, where ``m2pt templates`` has measured it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.runs.evaluated import Group
from lightning_m2pt.system.strict_json import parse_json

TEMPLATES, RECORD = "templates", "templates.json"
"""Folder of a run or an experiment, and the file of figures in it."""


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Returns mean, standard deviation (of a sample), least and greatest of two or more values."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return {"mean": mean, "deviation": math.sqrt(variance), "least": min(values), "greatest": max(values)}


def spread_text(spread: Mapping[str, Any]) -> str:
    """Returns the spread over texts in one sentence."""
    loss, accuracy = spread["loss"], spread["answer_accuracy"]
    return (
        f"{spread['texts']} texts on the same {spread['samples']:,} validation samples: answers right "
        f"{accuracy['least']:.1%} to {accuracy['greatest']:.1%}, mean {accuracy['mean']:.1%}, deviation "
        f"{accuracy['deviation']:.1%}; loss {loss['least']:.4f} to {loss['greatest']:.4f}, mean {loss['mean']:.4f}"
    )


def template_spread_notes(groups: Sequence[Group]) -> list[str]:
    """Returns a sentence for every spread that was measured of a group's runs, or beside them of their experiment.

    Raises:
        BadInputError: If such a file is damaged.
    """
    notes: dict[str, str] = {}
    for group in groups:
        for run in group.runs:
            for folder in (run.home / TEMPLATES, run.home.parent / TEMPLATES):
                if (folder / RECORD).is_file():
                    notes.setdefault(str(folder), f"{group.name}, words around the question: {recorded(folder)}")
    return list(notes.values())


def recorded(folder: Path) -> str:
    """Returns what a folder's figures say of the spread.

    Raises:
        BadInputError: If they are damaged.
    """
    path = folder / RECORD
    try:
        return spread_text(parse_json(path.read_bytes(), path)["spread"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            "the figures of the templates are damaged", where=str(path), expected="what `m2pt templates` writes"
        ) from error
