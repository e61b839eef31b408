"""What a report is made of: the runs that can be read, what was left out, and which of them can be compared.

Runs stand side by side if they tune the same backbone and answered the same questions in the same way. Everything else
is a comparison of its own, so that no table mixes two measurements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import OF_QUESTIONS
from lightning_m2pt.report.tables.backbone_gates import backbone_folder
from lightning_m2pt.report.tables.sweeps import Sweep, found_sweeps
from lightning_m2pt.runs.evaluated import (
    PREDICTIONS,
    SETTINGS,
    EvaluatedRun,
    Group,
    find_run_folders,
    grouped,
    read_run,
)
from lightning_m2pt.storage.run_record import BACKBONE_NAMES, DECIDING, MADE_WITH, RECORD_FILE, short_hash

BASE = "_base"
"""Ending of the experiments' files that a method's name does not need."""
UNKNOWN_BACKBONE = "backbone not recorded"
MOST_DIFFERENCES = 3
"""More settings than that are not written into a name."""
RECORDS = (RECORD_FILE, f"*/{RECORD_FILE}", f"*/*/{RECORD_FILE}")
"""Where runs' records lie: in a run, an experiment or all outputs. Trials of sweeps lie deeper and answer nothing."""


@dataclass
class ComparedGroups:
    """Groups of seeds that can stand in one table.

    Attributes:
        name: Name of the backbone, with something behind it if there are two comparisons on one backbone.
        groups: The groups, the frozen model first; their names are labels for people.
        backbone: The backbone's arguments as a run's configuration has them.
    """

    name: str
    groups: list[Group]
    backbone: dict[str, Any] = field(default_factory=dict)

    @property
    def benchmarks(self) -> list[str]:
        """The sets that any group answered, in the reports' order."""
        return Group("", [run for group in self.groups for run in group.runs]).benchmarks


@dataclass(frozen=True)
class Material:
    """Everything a report reads.

    Attributes:
        comparisons: What can be compared.
        sweeps: The sweeps whose tables or searches are there.
        left_out: What could not be read, a sentence each.
    """

    comparisons: list[ComparedGroups]
    sweeps: list[Sweep]
    left_out: list[str]


def read_material(outputs: Sequence[Path]) -> Material:
    """Reads all that has run.

    Args:
        outputs: Folders of runs, or of folders of runs.

    Raises:
        BadInputError: If nothing can be read.
    """
    sweeps, left_out = found_sweeps(outputs)
    left_out += unanswered(outputs)
    runs = []
    for folder in find_run_folders(outputs):
        try:
            runs.append(read_run(folder))
        except BadInputError as error:
            left_out.append(f"{run_label(folder)}: {error.what} ({error.where})")
    if not runs:
        raise BadInputError("none of the runs can be read", where=str(outputs[0]), expected=left_out[-1])
    return Material(comparisons_of(grouped(runs), sweeps), sweeps, left_out)


def unanswered(outputs: Sequence[Path]) -> list[str]:
    """Returns a sentence for every run that has a record but no predictions."""
    records = [
        path
        for root in outputs
        for pattern in RECORDS
        for path in sorted(root.glob(pattern))
        if not any((path.parent / PREDICTIONS).glob("*.jsonl"))
    ]
    return [f"{run_label(path.parent)}: no predictions (`m2pt evaluate --run` answers its sets)" for path in records]


def run_label(folder: Path) -> str:
    """Returns how a run's folder is named for people: experiment and run."""
    return "/".join(folder.parts[-2:])


def comparisons_of(groups: Sequence[Group], sweeps: Sequence[Sweep]) -> list[ComparedGroups]:
    """Returns groups by what they can be compared with, each under a label of its own."""
    found: list[tuple[str | None, list[Group]]] = []
    recorded = [group for group in groups if fingerprint_of(group, []) is not None]
    for group in sorted(groups, key=lambda group: group not in recorded):
        fingerprint = fingerprint_of(group, recorded)
        place = next(
            (
                members
                for other, members in found
                if other == fingerprint and all(have_same_settings(group, one) for one in members)
            ),
            None,
        )
        if place is None:
            found.append((fingerprint, [group]))
        else:
            place.append(group)
    comparisons: list[ComparedGroups] = []
    for fingerprint, members in found:
        relabel(members, sweeps)
        members.sort(key=lambda group: (any(run.is_tuned for run in group.runs), group.name))
        name, backbone = backbone_of(members)
        names = [comparison.name for comparison in comparisons]
        if name in names:
            name = f"{name}-{fingerprint[:8]}" if fingerprint and f"{name}-{fingerprint[:8]}" not in names else name
        if name in names:
            name = f"{name}-{len(names) + 1}"
        comparisons.append(ComparedGroups(name, members, backbone))
    return comparisons


def fingerprint_of(group: Group, recorded: Sequence[Group]) -> str | None:
    """Returns the fingerprint of a group's backbone, or None if nothing tells it.

    The frozen model's answers have no record; their folder is named after backbone and questions, so a tuned run on the
    same backbone that was asked the same gives the same name.
    """
    run = group.runs[0]
    decides = run.record.get(DECIDING)
    if isinstance(decides, dict):
        return decides["backbone"] if isinstance(decides.get("backbone"), str) else None
    for other in (one.runs[0] for one in recorded):
        fingerprint = fingerprint_of(Group("", [other]), [])
        sets = [name for name in set_names(other) if name in run.sets]
        questions = [without_count(run.sets[name].answered.header) for name in sets]
        known = [fingerprint, *(name for start in other.record.get(MADE_WITH, []) for name in names_in(start))]
        if run.folder.name in {short_hash({"backbone": name, "questions": questions}) for name in known}:
            return fingerprint
    return None


def without_count(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a header as folders of the frozen model's answers are named after it."""
    return {key: value for key, value in header.items() if key != OF_QUESTIONS}


def names_in(start: Any) -> list[str]:
    """Returns the names of the backbone that a start of a run recorded; runs of earlier versions recorded none."""
    names = start.get(BACKBONE_NAMES) if isinstance(start, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def set_names(run: EvaluatedRun) -> list[str]:
    """Returns the names of a run's evaluation sets in its configuration's order; a set is named like its module."""
    listed = run.config.get("benchmarks")
    paths = [one.get("class_path") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [path.split(".")[-2] for path in paths if isinstance(path, str) and "." in path]


def have_same_settings(first: Group, second: Group) -> bool:
    """Tells whether two groups answered their common sets under the same settings, on the same questions."""
    common = [name for name in first.benchmarks if name in second.benchmarks]
    pairs = [(first.of_set(name)[0], second.of_set(name)[0]) for name in common]
    return all(
        all(one.settings[key] == other.settings[key] for key in SETTINGS)
        and one.answered.predictions[0]["id"] == other.answered.predictions[0]["id"]
        and one.score.n == other.score.n
        for one, other in pairs
    )


def backbone_of(groups: Sequence[Group]) -> tuple[str, dict[str, Any]]:
    """Returns the name of a comparison's backbone, the folder of its files, and its arguments."""
    for group in groups:
        model = group.runs[0].config.get("model")
        backbone = model.get("backbone") if isinstance(model, dict) else None
        if isinstance(backbone, dict) and isinstance(backbone.get("init_args"), dict):
            folder = backbone_folder(backbone["init_args"])
            return (folder.name if folder is not None else UNKNOWN_BACKBONE), backbone
    return UNKNOWN_BACKBONE, {}


def relabel(groups: Sequence[Group], sweeps: Sequence[Sweep]) -> None:
    """Names every group for people: as a sweep labels it, or by its experiment and what sets it apart."""
    in_sweeps = [sweep_label(group, sweeps) for group in groups]
    plain = [own_label(group, groups) for group in groups]
    labels = [found[0] if found else own for found, own in zip(in_sweeps, plain, strict=True)]
    with_sweep = [f"{found[0]} ({found[1]})" if found else own for found, own in zip(in_sweeps, plain, strict=True)]
    for other in (with_sweep, [run_label(group.runs[0].folder) for group in groups]):
        labels = [one if labels.count(one) == 1 else two for one, two in zip(labels, other, strict=True)]
    for group, label in zip(groups, labels, strict=True):
        group.name = label


def sweep_label(group: Group, sweeps: Sequence[Sweep]) -> tuple[str, str] | None:
    """Returns the shortest label that a sweep gives to a group, and the sweep's name."""
    keys = {run_label(folder) for folder in group.folders}
    found = [(label, sweep.name) for sweep in sweeps for label, runs in sweep.runs.items() if keys & runs]
    return min(found, key=lambda one: (len(one[0]), one), default=None)


def own_label(group: Group, groups: Sequence[Group]) -> str:
    """Returns the experiment's name, and what differs from the first other group of the experiment."""
    experiment = group.runs[0].experiment
    alike = [other for other in groups if other.runs[0].experiment == experiment]
    name = experiment.removesuffix(BASE)
    if len(alike) == 1:
        return name
    settings = [flat(one.runs[0].record.get(DECIDING)) for one in alike]
    own = settings[alike.index(group)]
    keys = [key for key in own if key != "seed" and len({repr(one.get(key)) for one in settings}) > 1]
    if not keys or len(keys) > MOST_DIFFERENCES:
        return run_label(group.runs[0].folder)
    differing = [f"{key.rpartition('.')[2]} {own[key]}" for key in keys]
    return ", ".join([name, *differing])


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Returns nested settings under dotted keys."""
    if not isinstance(value, dict):
        return {prefix.rstrip("."): value}
    return {key: one for name, inner in value.items() for key, one in flat(inner, f"{prefix}{name}.").items()}
