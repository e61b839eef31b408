"""The transfers of a sweep: which trained prompt is used on which base, as the command lines that do it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from experiments.sweep.file import SweepFile
from experiments.sweep.jobs import DEFAULT_OUTPUT_ROOT, Job, SweepSettings, experiment_words
from experiments.sweep.record import State, SweepRecord
from experiments.sweep.transfer_section import TransferCell, TransferPlan
from lightning_m2pt.errors import BadInputError

if TYPE_CHECKING:
    from experiments.configuration.cli import Experiment
    from lightning_m2pt.answering.decoding import AnsweringMethod

SEVERAL_SEEDS, SEVERAL_BASES = "mean over seeds", "mean over bases"
"""Behind a row's label: one prompt that is the mean of the prompts of all seeds, or of all bases."""
OF_TRAINING = ("--model.method", "--model.gradient_norm", "--model.regularisers", "--model.optimizer")
"""What of a row's arguments plays no part in using its prompt."""


@dataclass(frozen=True)
class Carried:
    """A prompt, or the mean of several, on a base.

    Attributes:
        row: The row's label, with what mean it is if it is one.
        set: The set it is trained for and used on.
        source: Name of the base it was trained on; several with a plus between them.
        target: Name of the base it is used on.
        seed: Seed of its training; None for the mean over seeds.
        job: The command that uses it; None if a prompt is not trained yet.
    """

    row: str
    set: str
    source: str
    target: str
    seed: int | None
    job: Job | None

    @property
    def title(self) -> str:
        """What people read."""
        of_seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.row}, {self.set}, {self.source} to {self.target}{of_seed}"

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean of several prompts."""
        return self.row.endswith((SEVERAL_SEEDS, SEVERAL_BASES))

    @property
    def folder(self) -> Path | None:
        """Where its answers and scores are; None if it cannot be used yet."""
        if self.job is None:
            return None
        words = self.job.commands[0]
        return Path(words[words.index("--output") + 1])


def transfer_jobs(all_carried: Sequence[Carried]) -> list[Job]:
    """Returns the commands of what can be used already."""
    return [each.job for each in all_carried if each.job is not None]


def trained_runs(jobs: Sequence[Job], record: SweepRecord) -> dict[tuple[str, int], Path]:
    """Returns the runs' folders of complete cells by label and seed."""
    runs = {}
    for job in jobs:
        entry = record.read(job)
        if entry is not None and record.state(job) == State.DONE:
            runs[job.label, int(job.name.split()[-1])] = Path(entry.run)
    return runs


def carried_prompts(sweep: SweepFile, setting: SweepSettings, runs: Mapping[tuple[str, int], Path]) -> list[Carried]:
    """Returns every use of a prompt that a sweep's plan asks for, all of the first seed first, means last.

    Args:
        sweep: It has a section ``transfer``.
        setting: Where runs go.
        runs: Folders of the runs that are trained, by label and seed.
    """
    plan = sweep.transfer
    assert plan is not None
    found = []
    for seed in plan.seeds:
        for cell in plan.cells:
            if seed in cell.variant.seeds:
                of_cell = [runs.get((cell.variant.label, seed))]
                found += [
                    carried(sweep, setting, cell, (cell.row, cell.base, target, seed), of_cell) for target in plan.bases
                ]
    return [*found, *means(sweep, setting, plan, runs)]


def means(
    sweep: SweepFile, setting: SweepSettings, plan: TransferPlan, runs: Mapping[tuple[str, int], Path]
) -> list[Carried]:
    """Returns the uses of means of prompts: over the seeds of each base, and over the bases for each seed."""
    found = []
    for row, name in plan.means:
        alike = [cell for cell in plan.cells if (cell.row, cell.set) == (row, name)]
        for cell in alike:
            of_seeds = [runs.get((cell.variant.label, seed)) for seed in cell.variant.seeds]
            if len(of_seeds) > 1:
                found += [
                    carried(sweep, setting, cell, (f"{row}, {SEVERAL_SEEDS}", cell.base, target, None), of_seeds)
                    for target in plan.bases
                ]
        source = "+".join(cell.base for cell in alike)
        for seed in alike[0].variant.seeds:
            of_bases = [runs.get((cell.variant.label, seed)) for cell in alike]
            found += [
                carried(sweep, setting, alike[0], (f"{row}, {SEVERAL_BASES}", source, target, seed), of_bases)
                for target in plan.bases
            ]
    return found


def carried(
    sweep: SweepFile,
    setting: SweepSettings,
    cell: TransferCell,
    what: tuple[str, str, str, int | None],
    runs: Sequence[Path | None],
) -> Carried:
    """Returns one use of a prompt.

    Args:
        sweep: The sweep.
        setting: Where runs go.
        cell: Row and set of the prompt.
        what: The row's label, names of source and target, and the seed.
        runs: Folders of the runs whose prompts' mean is used, None for those that are not trained.
    """
    row, source, target, seed = what
    trained = [run for run in runs if run is not None]
    if len(trained) < len(runs):
        return Carried(row, cell.set, source, target, seed, None)
    plan = sweep.transfer
    assert plan is not None
    # The row's own files say how a prompt is trained; the first one's devices and paths are the target's as well.
    first, files = cell.variant.configs[0], (plan.sets[cell.set], plan.bases[target])
    words = ["transfer", *(word for run in trained for word in ("--prompt", run.as_posix()))]
    words += ["--to", first.as_posix(), *(word for file in files for word in ("--config", file.as_posix()))]
    words += [word for word in cell.variant.arguments if not word.startswith(OF_TRAINING)]
    words += [f"--allow-import={package}" for package in setting.opened]
    words += ["--answer", plan.answer]
    if cell.row == plan.random_like and seed is not None and row == cell.row:
        words += ["--random", str(seed)]
    if setting.output_root != DEFAULT_OUTPUT_ROOT:
        words.append(f"--output_root={setting.output_root}")
    label = f"{row} {cell.set} {source} to {target}".replace(",", "")
    name = "all seeds" if seed is None else f"seed {seed}"
    job = Job(label, name, "transfer", (tuple(words),), (first, *files), setting.output_root)
    folder = setting.output_root / "transfers" / sweep.name / job.file_stem
    job = replace(job, commands=((*words, "--output", folder.as_posix()),))
    return Carried(row, cell.set, source, target, seed, job)


def check_trained(plan: TransferPlan, label: str, experiment: "Experiment") -> None:
    """Refuses an experiment that trains no prompt to carry, or does not ask the one set that its cell is named by.

    Args:
        plan: Of the sweep.
        label: Label of the experiment's variant.
        experiment: Parsed; nothing is loaded.

    Raises:
        BadInputError: If it is so.
    """
    from lightning_m2pt.methods.pixel_prompting import PIXEL_PROMPT

    (cell,) = [cell for cell in plan.cells if cell.variant.label == label]
    if PIXEL_PROMPT not in experiment.model.method.part_names():
        raise BadInputError(
            f"{label!r} trains no prompt in pixels",
            where=cell.variant.where,
            expected=f"a method with the part {PIXEL_PROMPT}: rows of a model belong to their base",
        )
    names = [benchmark.name for benchmark in experiment.benchmarks]
    if names != [cell.set]:
        raise BadInputError(
            f"{label!r} is asked {', '.join(names) or 'nothing'}",
            where=str(plan.sets[cell.set]),
            expected=f"`benchmarks` with the one set {cell.set}",
        )


def check_answers(plan: TransferPlan, setting: SweepSettings) -> None:
    """Refuses a set that cannot be answered as the plan asks for, before anything is trained for it.

    Args:
        plan: Of the sweep.
        setting: What the command line adds.

    Raises:
        BadInputError: If it has no candidate answers and likelihoods are asked for, or its files are not there.
    """
    from experiments.configuration.cli import parse_experiment
    from experiments.runs.evaluation import answering_of
    from lightning_m2pt.main import quieten_libraries

    quieten_libraries()  # Lightning, imported just now, has set its loggers' levels
    for name in plan.sets:
        cell = next((cell for cell in plan.cells if cell.set == name), None)
        if cell is None:
            raise BadInputError("no row is trained for it", where=str(plan.sets[name]), expected=f"a row with {name}")
        experiment = parse_experiment(experiment_words(cell.variant, setting, {}))
        check_trained(plan, cell.variant.label, experiment)
        experiment.connect()
        for benchmark in experiment.benchmarks:
            answering_of(benchmark, cast("AnsweringMethod", plan.answer))
