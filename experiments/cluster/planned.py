"""From words to what a job runs: an experiment, a sweep's cells or a run's evaluation, checked before it is submitted.

What is checked here is what can be known without weights and without reading annotations: a job that waits for hours
should not end in its first minute.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_modules.instruction import InstructionDataModule
from data_modules.mixture import sets_inside
from experiments.cluster.records import BY_ITSELF
from experiments.cluster.resources import Resources, gpus_in
from experiments.configuration.catalogue import EXPERIMENTS
from experiments.configuration.cli import Experiment
from experiments.configuration.parts import experiment_file
from experiments.runs.loading import experiment_of
from experiments.runs.prepare import is_of_testbed, require_benchmarks
from experiments.runs.tuning import check_tuning_settings
from experiments.sweep.file import SWEEPS, read_sweep, shipped_sweeps
from experiments.sweep.jobs import SweepSettings, cells, check_backbone
from experiments.sweep.record import State, SweepRecord
from experiments.sweep.search import chosen_rates, without_rates
from experiments.sweep.study import known_searches
from lightning_m2pt.commands.verbs import parser_of
from lightning_m2pt.configuration.paths import from_here
from lightning_m2pt.configuration.strict_yaml import read_mapping
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.run_record import CONFIG_FILE
from lightning_m2pt.tuning.proven_strategies import configured_names, refuse_unproven_strategy
from lightning_m2pt.tuning.sample_order import checked_micro_batch_size

STRATEGIES = EXPERIMENTS / "strategies"
VERBS = ("train", "fit", "evaluate")
OF_A_SWEEP = "seeds"
"""The key that every sweep's file has, and no experiment's."""
SET_BY_RESOURCES = ("--trainer.devices", "--trainer.num_nodes")
STARTS_OVER = "--force"


@dataclass(frozen=True)
class Plan:
    """What a job, or each element of an array, runs.

    Attributes:
        name: What the job is called if nothing else is said.
        labels: What each element is, by its number; by an empty text for a job by itself.
        words: What stands behind ``m2pt``, likewise.
        tunes: Whether anything is trained.
        output_root: Folder of the runs, absolute.
        accelerator: As the experiment says.
    """

    name: str
    labels: dict[str, str]
    words: dict[str, tuple[str, ...]]
    tunes: bool
    output_root: Path
    accelerator: str


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        target: An experiment's file or name, a sweep's, or a run's folder.
        verb: What is run; empty takes the one that fits.
        strategy: Name of a file of ``experiments/strategies``; empty takes ``ddp`` where there are several processes.
        settings: Further words for the verb.
        output_root: Folder of all runs, if it is named.
        backbone: Another file of ``experiments/backbones``, for a sweep.
        with_search: Whether a sweep's rates are the ones that were searched.
    """

    target: str
    verb: str
    strategy: str
    settings: tuple[str, ...]
    output_root: Path | None
    backbone: str = ""
    with_search: bool = True


def plan(wanted: Wanted, resources: Resources | None) -> Plan:
    """Returns what is to run.

    Args:
        wanted: What the command line asks for.
        resources: What each job asks for; None looks only what the experiment is, so that the resources can follow.

    Raises:
        BadInputError: If something is wrong or missing.
    """
    refuse_settings(wanted.settings)
    if sweep_file(wanted.target) is not None:
        return plan_of_sweep(wanted, resources)
    if wanted.backbone or not wanted.with_search:
        flag = "--backbone" if wanted.backbone else "--no-search"
        raise BadInputError(f"{wanted.target} is no sweep", where=f"command line: {flag}", expected="a sweep's file")
    return plan_of_one(wanted, resources)


def plan_of_one(wanted: Wanted, resources: Resources | None) -> Plan:
    """Returns the plan of an experiment, or of the evaluation of a run."""
    target = Path(wanted.target)
    if target.is_dir():
        if wanted.verb not in ("", "evaluate") or not (target / CONFIG_FILE).is_file():
            raise BadInputError(
                "this is a folder",
                where=wanted.target,
                expected="an experiment's or a sweep's file, or a run's folder with --verb evaluate",
            )
        verb, words, name = "evaluate", ["--run", wanted.target], target.resolve().parent.name
    else:
        file = experiment_file(wanted.target)
        if not file.exists():
            raise nothing_called(wanted.target)
        verb, words, name = wanted.verb or "train", ["--config", str(from_here(file))], file.stem
    words += [*strategy_words(wanted.strategy, resources), *wanted.settings]
    if wanted.output_root is not None:
        words += [] if target.is_dir() else ["--output_root", str(wanted.output_root)]
    experiment = checked(verb, words, resources)
    trains = verb != "evaluate" and bool(experiment.model.method.part_names())
    return Plan(
        name,
        {BY_ITSELF: f"{verb} {name}"},
        {BY_ITSELF: (verb, *words)},
        trains,
        experiment.output_root.absolute(),
        str(experiment.config["trainer"].get("accelerator", "auto")),
    )


def nothing_called(target: str) -> BadInputError:
    """Returns the error about a word that names nothing to run, with the nearest name that does."""
    names = [path.stem for path in (*EXPERIMENTS.glob("*.yaml"), *shipped_sweeps())]
    near = difflib.get_close_matches(Path(target).stem, sorted(names), n=1)
    return BadInputError(
        "there is no such file or folder",
        where=target,
        expected="an experiment's or a sweep's file or name, or a run's folder",
        hint=f"did you mean {near[0]}?" if near else "`m2pt list experiments` and `m2pt list sweeps` tell names",
    )


def plan_of_sweep(wanted: Wanted, resources: Resources | None) -> Plan:
    """Returns the plan of a sweep: an array with an element for each cell that is not complete."""
    if wanted.verb not in ("", "train"):
        raise BadInputError(
            f"a sweep's cells are trained and evaluated, not only {wanted.verb}",
            where="command line: --verb",
            expected="no --verb",
        )
    file = sweep_file(wanted.target)
    assert file is not None  # the caller has looked
    sweep = read_sweep(file)
    check_backbone(wanted.backbone, sweep)
    setting = SweepSettings(wanted.backbone)
    if wanted.output_root is not None:
        setting = replace(setting, output_root=wanted.output_root)
    folder = setting.folder(sweep)
    searches, chosen = known_searches(sweep, setting, folder)
    rates: dict[str, dict[str, float]] = {}
    if sweep.search is not None and wanted.with_search:
        if missing := without_rates(sweep.variants, chosen):
            raise BadInputError(
                f"learning rates are chosen for {len(sweep.variants) - len(missing)} of {len(sweep.variants)} variants",
                where=str(file),
                expected="a search that is over: the cells' command lines hold what it found",
                hint=f"`m2pt sweep run {wanted.target} --search-only` on a node, or --no-search for the files' rates",
            )
        rates = chosen_rates(sweep.variants, searches, chosen)
    record = SweepRecord(folder, setting.output_root / "sweeps" / ".locks")
    jobs = cells(sweep, setting, rates)
    waiting = {str(number): job for number, job in enumerate(jobs) if record.state(job) != State.DONE}
    if not waiting:
        raise BadInputError("every cell is complete", where=str(file), expected="one that is left to run")
    more = (*strategy_words(wanted.strategy, resources), *wanted.settings)
    accelerator = ""
    for variant in sweep.variants:
        first = next((job for job in waiting.values() if job.label == variant.label), None)
        if first is not None:
            experiment = checked("train", [*first.commands[0][1:], *more], resources, variant.where)
            accelerator = accelerator or str(experiment.config["trainer"].get("accelerator", "auto"))
    return Plan(
        sweep.name,
        {number: job.title for number, job in waiting.items()},
        {number: (*job.commands[0], *more) for number, job in waiting.items()},
        tunes=True,
        output_root=setting.output_root.absolute(),
        accelerator=accelerator,
    )


def sweep_file(target: str) -> Path | None:
    """Returns the file of a sweep that a word names; None if it names something else.

    Raises:
        BadInputError: If the file cannot be read.
    """
    shipped = SWEEPS / f"{target}.yaml"
    if re.fullmatch(r"\w+", target) and not Path(target).exists() and shipped.is_file():
        return shipped
    path = Path(target)
    if not path.is_file():
        return None
    return path if any(key.value == OF_A_SWEEP for key, _ in read_mapping(path).value) else None


def strategy_words(name: str, resources: Resources | None) -> list[str]:
    """Returns the words that choose a strategy.

    Raises:
        BadInputError: If there is no such file.
    """
    if resources is None:
        return []
    if not name and resources.processes == 1:
        return []
    path = STRATEGIES / f"{name or 'ddp'}.yaml"
    if not re.fullmatch(r"\w+", name or "ddp") or not path.is_file():
        raise BadInputError(
            f"there is no strategy {name!r:.40}",
            where="command line: --strategy",
            expected="one of " + ", ".join(sorted(each.stem for each in STRATEGIES.glob("*.yaml"))),
        )
    return ["--config", str(from_here(path))]


def refuse_settings(words: Sequence[str]) -> None:
    """Refuses words that the job's resources decide, or that would undo at every restart what the job has done.

    Raises:
        BadInputError: If there is one.
    """
    for word in words:
        key = word.partition("=")[0]
        if key in SET_BY_RESOURCES:
            raise BadInputError(
                "this follows from the job's nodes and GPUs",
                where=f"command line: {key}",
                expected="--nodes, --gpus-per-node or --tasks-per-node",
            )
        if key == STARTS_OVER:
            raise BadInputError(
                "a job that was put back into the queue would start over each time",
                where=f"command line: {key}",
                expected="no such flag",
                hint="remove the run's folder first, or use --output_root",
            )


def checked(verb: str, words: Sequence[str], resources: Resources | None, place: str = "") -> Experiment:
    """Parses an experiment as its job will, and looks at what can be known before it is submitted.

    Args:
        verb: The verb.
        words: Its words.
        resources: What the job asks for; None leaves out what depends on it.
        place: Where the experiment is named, for errors.

    Raises:
        BadInputError: If something is wrong.
    """
    try:
        own, rest = parser_of(verb).parse_known_args(list(words))
        counts = (resources.tasks_per_node, resources.nodes) if resources else ()
        told = [word for pair in zip(SET_BY_RESOURCES, map(str, counts), strict=False) for word in pair]
        run, adapter = (own.run, own.adapter) if verb == "evaluate" else (None, None)
        experiment = experiment_of(run, adapter, [*rest, *told])
        if resources is not None:
            check_fit(verb, experiment, resources)
    except BadInputError as error:
        if not place:
            raise
        raise BadInputError(
            error.what, where=f"{place}: {error.where}", expected=error.expected, hint=error.hint
        ) from error
    return experiment


def check_fit(verb: str, experiment: Experiment, resources: Resources) -> None:
    """Looks whether experiment, resources and files fit together."""
    trainer = experiment.config["trainer"]
    refuse_unproven_strategy(configured_names(trainer.get("strategy")))
    check_accelerator_of_job(str(trainer.get("accelerator", "auto")), resources)
    tunes = verb != "evaluate" and bool(experiment.model.method.part_names())
    if tunes or verb == "fit":
        check_tuning_settings(experiment)
        check_share(experiment, resources.processes)
    if verb != "fit":
        require_benchmarks(experiment)
    experiment.model.backbone.check_files()
    sets: list[Any] = [] if verb == "fit" else [*experiment.benchmarks]
    for each in [*(sets_inside(experiment.data) if tunes else []), *sets]:
        check_set(each)


def check_share(experiment: Experiment, processes: int) -> None:
    """Looks whether the processes can share an optimizer step, before it is known how many samples there are.

    Raises:
        BadInputError: If they cannot.
    """
    data = experiment.data
    if isinstance(data, InstructionDataModule):
        checked_micro_batch_size(data.batch_size, data.micro_batch_size, processes, size=data.batch_size)


def check_set(data: Any) -> None:
    """Looks for a set's folder and for the files that it names.

    Raises:
        BadInputError: If one is missing; the testbed is rendered when it is needed.
    """
    if is_of_testbed(data.root):
        return
    named = (data.files_read() or ()) if isinstance(data, InstructionDataModule) else ()
    missing = next((path for path in [data.root, *named] if not path.exists()), None)
    if missing is not None:
        raise BadInputError(
            "there is no such file or folder",
            where=f"{type(data).__name__}: {missing}",
            expected="the set's files, on a file system that the nodes see",
            hint="`m2pt data fetch NAME` brings a set; M2PT_DATA says where all of them are",
        )


def check_accelerator_of_job(accelerator: str, resources: Resources) -> None:
    """Looks whether what is asked for is what the experiment uses.

    Raises:
        BadInputError: If GPUs are asked for that nothing uses, or none where one is needed.
    """
    gpus = gpus_in(resources.gpus_per_node)
    if gpus and accelerator == "cpu":
        raise BadInputError(
            f"{gpus} GPUs a node for an experiment with trainer.accelerator cpu",
            where="command line: --gpus-per-node",
            expected="0 GPUs, or another accelerator",
            hint="--trainer.accelerator gpu",
        )
    if not gpus and accelerator in ("gpu", "cuda"):
        raise BadInputError(
            f"no GPU for an experiment with trainer.accelerator {accelerator}",
            where="command line: --gpus-per-node",
            expected="1 or more",
        )
