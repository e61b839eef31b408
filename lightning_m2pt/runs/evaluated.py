"""Evaluated runs as their folders tell of them: predictions scored, configuration and record read; needs no torch."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_m2pt.configuration.recorded import recorded_configuration
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import PredictionFile, check_paired, read_predictions
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.statistics import Floats, mean_of_runs, resampled_scores
from lightning_m2pt.runs.scoring import score_content
from lightning_m2pt.storage.run_record import CONFIG_FILE, DECIDING, is_unfinished, read_run_record

PREDICTIONS, EVALUATIONS = "predictions", "evaluations"
ORDER_OF_SETS = ("mme", "vsr", "snli_ve", "pope", "cifar10", "cifar100", "mnist", "text_vqa")
"""Other sets follow by name."""
SETTINGS = {
    "rule": "scoring rule",
    "data_revision": "data revision",
    "template": "template",
    "decoding": "decoding",
    "shots": "number of worked examples",
}
"""What a score depends on beside model and questions, and what it is called."""
MUST_AGREE = ("rule", "data_revision")
"""Scores that differ in one of these are not compared."""
FINGERPRINT_DIGITS, SHOWN_DIGITS = 64, 8


@dataclass(frozen=True)
class EvaluatedSet:
    """One run's answers to one set, scored.

    Attributes:
        answered: The prediction file.
        score: Its score.
    """

    answered: PredictionFile
    score: Score

    @property
    def settings(self) -> dict[str, Any]:
        """What the score depends on beside model and questions, by the keys of ``SETTINGS``."""
        known = {**self.answered.header, "rule": self.score.rule, "shots": self.shots}
        return {key: known.get(key) for key in SETTINGS}

    @property
    def shots(self) -> int:
        """How many worked examples stood before every question."""
        examples = self.answered.header.get("examples")
        return int(examples["shots"]) if isinstance(examples, dict) else 0


@dataclass(frozen=True)
class EvaluatedRun:
    """One folder with predictions.

    Attributes:
        folder: The folder.
        home: The tuned run's folder: itself, or two above for another evaluation of it.
        sets: What was answered, by the set's name.
        record: The sections of the run's ``run.json``; empty if there is none.
    """

    folder: Path
    home: Path
    sets: dict[str, EvaluatedSet]
    record: dict[str, Any]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's resolved configuration; empty if there is none.

        Raises:
            BadInputError: If the file is no YAML of keys and plain values, or asks for what no run has.
        """
        path = self.home / CONFIG_FILE
        return recorded_configuration(path) if path.is_file() else {}

    @property
    def is_tuned(self) -> bool:
        """Whether an adapter answered."""
        return any(one.answered.header.get("adapter") is not None for one in self.sets.values())

    @property
    def seed(self) -> int | None:
        """The seed it was tuned with, if its record names one."""
        deciding = self.record.get(DECIDING)
        seed = deciding.get("seed") if isinstance(deciding, dict) else None
        return seed if isinstance(seed, int) else None

    @property
    def experiment(self) -> str:
        """The experiment's name, that of the evaluation if it is not the run's own, and whether tuning is not over."""
        name = self.home.parent.name + (", unfinished" if is_unfinished(self.record) else "")
        return name if self.home == self.folder else f"{name}, {self.folder.name}"

    def is_seed_of(self, other: "EvaluatedRun") -> bool:
        """Tells whether two runs differ in nothing but the seed."""
        own, others = self.record.get(DECIDING), other.record.get(DECIDING)
        if not isinstance(own, dict) or not isinstance(others, dict) or self.seed == other.seed:
            return False
        if {**own, "seed": None} != {**others, "seed": None} or self.experiment != other.experiment:
            return False
        common = self.sets.keys() & other.sets.keys()
        return all(self.sets[name].settings == other.sets[name].settings for name in common)


@dataclass
class Group:
    """One experiment's runs, one for every seed.

    Attributes:
        name: What reports call it.
        runs: The runs, in the order of their seeds.
    """

    name: str
    runs: list[EvaluatedRun]
    resampled: dict[str, Floats] = field(default_factory=dict)

    @property
    def benchmarks(self) -> list[str]:
        """The sets that any of its runs answered, in the reports' order."""
        names = {name for run in self.runs for name in run.sets}
        known = [name for name in ORDER_OF_SETS if name in names]
        return [*known, *sorted(names - set(known))]

    @property
    def folders(self) -> list[Path]:
        """Its runs' folders."""
        return [run.folder for run in self.runs]

    def of_set(self, benchmark: str) -> list[EvaluatedSet]:
        """Returns what its runs made of a set, for those that answered it."""
        return [run.sets[benchmark] for run in self.runs if benchmark in run.sets]

    def scores(self, benchmark: str) -> list[Score]:
        """Returns its runs' scores on a set."""
        return [one.score for one in self.of_set(benchmark)]

    def resampled_mean(self, benchmark: str) -> Floats:
        """Returns the mean over seeds on resamples of the set's questions, computed once: (resamples,)."""
        if benchmark not in self.resampled:
            first = self.of_set(benchmark)[0]
            self.resampled[benchmark] = mean_of_runs(resampled_scores(first.answered, self.scores(benchmark)))
        return self.resampled[benchmark]


def find_run_folders(paths: Sequence[Path]) -> list[Path]:
    """Returns the absolute folders with predictions, each once: every given one, or all inside it.

    Raises:
        BadInputError: If a path holds none.
    """
    found: list[Path] = []
    for path in (Path(os.path.abspath(path)) for path in paths):
        inside = [path] if has_predictions(path) else outermost(path)
        if not inside:
            raise BadInputError(
                "there are no predictions here" if path.exists() else "the folder does not exist",
                where=str(path),
                expected="a run's folder, one of its evaluations, outputs/frozen/HASH, or a folder of these",
                hint="`m2pt evaluate` answers and scores a run's sets",
            )
        found += [folder for folder in inside if folder not in found]
    return found


def has_predictions(folder: Path) -> bool:
    """Tells whether a folder is a run's, or like one: it holds prediction files."""
    return any((folder / PREDICTIONS).glob("*.jsonl"))


def outermost(folder: Path) -> list[Path]:
    """Returns the folders with predictions below a folder; none within another."""
    found = []
    for inside in sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith(".")):
        found += [inside] if has_predictions(inside) else outermost(inside)
    return found


def read_run(folder: Path, sets: Sequence[str] = (), rules: Mapping[str, str] | None = None) -> EvaluatedRun:
    """Reads and scores one folder's predictions.

    Args:
        folder: The folder that holds ``predictions/``, absolute.
        sets: Names of the sets to read; none takes all.
        rules: Scoring rules by set; ``""`` names the rule of all others; without it each file's default.

    Raises:
        BadInputError: If a file is damaged or of another set, a rule does not fit, or a set is not there.
    """
    named = rules or {}
    evaluated = {}
    for path in sorted((folder / PREDICTIONS).glob("*.jsonl")):
        if sets and path.stem not in sets:
            continue
        content = read_predictions(path)
        if content.header["benchmark"] != path.stem:
            raise BadInputError(
                f"these are predictions of {content.header['benchmark']!r:.40}",
                where=str(path),
                expected=f"those of {path.stem}, as the file is named",
            )
        rule = named.get(path.stem, named.get("", content.header["default_rule"]))
        evaluated[path.stem] = EvaluatedSet(content, score_content(path, content, rule))
    missing = [name for name in [*sets, *filter(None, named)] if name not in evaluated]
    if missing:
        raise BadInputError(
            f"there are no predictions of {missing[0]!r:.40}",
            where=str(folder / PREDICTIONS),
            expected=", ".join(sorted(path.stem for path in (folder / PREDICTIONS).glob("*.jsonl"))),
        )
    home = folder.parent.parent if folder.parent.name == EVALUATIONS else folder
    return EvaluatedRun(folder, home, evaluated, read_run_record(home))


def grouped(runs: Sequence[EvaluatedRun]) -> list[Group]:
    """Returns runs as groups of seeds, each with a name of its own.

    Raises:
        BadInputError: If seeds of one group answered different questions on data of one fingerprint.
    """
    groups: list[list[EvaluatedRun]] = []
    for run in runs:
        group = next((group for group in groups if all(run.is_seed_of(other) for other in group)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    for group in groups:
        refuse_other_questions(group)
    first = [group[0] for group in groups]
    names = [run.experiment for run in first]
    for longer in ([f"{run.experiment}/{run.folder.name}" for run in first], [str(run.folder) for run in first]):
        names = [name if names.count(name) == 1 else other for name, other in zip(names, longer, strict=True)]
    return [
        Group(name, sorted(group, key=lambda run: (run.seed is None, run.seed)))
        for name, group in zip(names, groups, strict=True)
    ]


def refuse_other_questions(runs: Sequence[EvaluatedRun]) -> None:
    """Refuses seeds whose questions differ under equal ids, too: their mean would be of two measurements.

    Raises:
        BadInputError: Naming the first question that differs, and both folders.
    """
    first: dict[str, EvaluatedRun] = {}
    for run in runs:
        for name, evaluated in run.sets.items():
            other = first.setdefault(name, run)
            names = (str(other.folder), str(run.folder))
            check_paired(other.sets[name].answered.predictions, evaluated.answered.predictions, names)


def refuse_incomparable(benchmark: str, first: tuple[str, EvaluatedSet], second: tuple[str, EvaluatedSet]) -> None:
    """Refuses to compare scores under different rules, or on different data.

    Args:
        benchmark: The set's name.
        first: What one run is called, and what it made of the set.
        second: The same of the other.

    Raises:
        BadInputError: Naming what differs, with both values.
    """
    for key in MUST_AGREE:
        values = [answered.settings[key] for _, answered in (first, second)]
        if values[0] != values[1]:
            one, other = map(short, values)
            raise BadInputError(
                f"{SETTINGS[key]} of {benchmark}: {one} in {first[0]}, {other} in {second[0]}",
                where="scores",
                expected=f"the same {SETTINGS[key]} in both",
                hint="--rule names one rule for both" if key == "rule" else "evaluate both on the same data",
            )


def short(value: Any) -> str:
    """Returns a setting as tables show it: decoding in words, a fingerprint by its first digits."""
    if isinstance(value, dict):
        return decoding_text(value)
    text = str(value)
    return text[:SHOWN_DIGITS] if len(text) == FINGERPRINT_DIGITS else text


def decoding_text(decoding: Mapping[str, Any]) -> str:
    """Returns decoding settings in words, for example ``greedy, 8 tokens, float32``; candidate answers are counted."""
    rest = dict(decoding)
    words = [str(rest.pop("method"))] if "method" in rest else []
    if "max_new_tokens" in rest:
        words.append(f"{rest.pop('max_new_tokens')} tokens")
    if isinstance(rest.get("candidate_tokens"), dict):
        words.append(f"{len(rest.pop('candidate_tokens'))} candidates")
    if rest.pop("own_candidates_sha256", None) is not None:
        words.append("candidates of each question")
    if "dtype" in rest:
        words.append(str(rest.pop("dtype")))
    return ", ".join([*words, *(f"{key} {json.dumps(value)}" for key, value in rest.items())])
