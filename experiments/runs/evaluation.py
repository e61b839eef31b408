"""Answers and scores every benchmark of an experiment with one loaded model; predictions first, scores from files."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial as bound
from pathlib import Path
from typing import Any, Literal

from callbacks.lock_check import LockCheck
from callbacks.predictions import PredictionWriter, prediction_file, prediction_header
from callbacks.progress import SampleProgressBar
from callbacks.stop_after_batch import StopAfterBatch
from data_modules.benchmark import BenchmarkDataModule
from data_modules.few_shot import add_examples
from experiments.configuration.cli import Experiment
from experiments.runs.answering import answering_trainer, started_ranks
from experiments.runs.folder import present_or_first, short_hash, template_content
from experiments.runs.lengths import check_premise_lengths, check_question_lengths
from experiments.runs.ways_to_answer import PremiseRule, answering_of
from lightning_m2pt.answering.decoding import Answering, AnsweringMethod
from lightning_m2pt.answering.near_ties import depends_on_batch, near_tie_limit
from lightning_m2pt.answering.partial_predictions import PartialPredictions, refuse_other_header
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.metrics.predictions import ADAPTER_CHOSEN, OF_QUESTIONS, read_predictions
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.report.adapter_card import write_adapter_cards
from lightning_m2pt.runs.scoring import score_file, write_score
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.system.console import say, short_path
from lightning_m2pt.system.file_lock import locked, remove_if_free
from lightning_m2pt.system.rank_group import RankGroup
from lightning_m2pt.system.tensor_hashes import hash_tensors

Toggles = Mapping[str, bool | int | str]
NO_ADAPTER: Toggles = {"method": "frozen"}
OnOther = Literal["refuse", "replace"]
SEEN_WITHIN = 60.0
"""Seconds after which a file that another node has written is missed: network file systems remember for a while."""


@dataclass(frozen=True)
class AnsweringOptions:
    """How an evaluation is made.

    Attributes:
        method: ``greedy``, or one that chooses among each set's candidate answers.
        force: Answer again even if answers are there.
        on_other: What to do with answers of another adapter, data or template: ``refuse`` them, or ``replace`` them,
            as the evaluation that belongs to a training does.
        shared_prefix: Compute prompts, system text and every picture once for all their questions, wherever the
            attached method and the questions allow it. The same answers without in float32: every question by itself.
        premise: What ``contextual_calibration`` or ``likelihood_pmi`` set against a question; None takes the published.
    """

    method: AnsweringMethod = "greedy"
    force: bool = False
    on_other: OnOther = "refuse"
    shared_prefix: bool = True
    premise: PremiseRule | None = None


def check_benchmarks(
    experiment: Experiment,
    shots: int = 0,
    method: AnsweringMethod = "greedy",
    premise: PremiseRule | None = None,
    draw: int | None = None,
) -> None:
    """Checks every set's data and looks whether it can be answered as asked for; needs no weights.

    Args:
        experiment: Its sets are connected; with ``shots`` they are asked with examples from now on.
        shots: Examples of the training split before every question.
        method: How questions are answered.
        premise: What a calibrated method sets against a question.
        draw: Number of the draw of examples that all questions have in common; None draws for each question.

    Raises:
        BadInputError: If data are wrong or missing, a set has no training split or no candidate answers, or a question
            becomes too long for the language model.
    """
    for benchmark in experiment.benchmarks:
        benchmark.check()
        ask_with(experiment, benchmark, shots, method, premise, draw)


def ask_with(
    experiment: Experiment,
    benchmark: BenchmarkDataModule,
    shots: int,
    method: AnsweringMethod,
    premise: PremiseRule | None = None,
    draw: int | None = None,
) -> None:
    """Puts examples before a set's questions from now on; the arguments are those of ``check_benchmarks``.

    Raises:
        BadInputError: If the set has no training split or no candidate answers, or something becomes too long.
    """
    if shots:
        add_examples(benchmark, shots, draw)
    answering = answering_of(benchmark, method, premise)
    check_question_lengths(experiment.model, benchmark, answering.most_tokens)
    check_premise_lengths(experiment.model, answering)


def header_of(
    experiment: Experiment,
    benchmark: BenchmarkDataModule,
    adapter: str | None,
    toggles: Toggles,
    answering: Answering,
    shared_prefix: bool = True,
) -> dict[str, Any]:
    """Returns the header of a set's prediction file; where rounding is coarse, batches belong to what decided it."""
    decoding = {**answering.description(), "dtype": experiment.model.backbone.dtype_name, **template_content(benchmark)}
    if depends_on_batch(experiment.model.backbone.dtype_name):
        decoding |= {"batch_size": benchmark.batch_size, "shared_prefix": shared_prefix}
    header = prediction_header(benchmark, adapter, toggles, decoding)
    chosen = experiment.model.chosen if adapter is not None else None
    return header | ({ADAPTER_CHOSEN: chosen} if chosen else {})


def frozen_folder(experiment: Experiment, options: AnsweringOptions = AnsweringOptions()) -> Path:
    """Returns where the untouched model's predictions stand: shared by all runs on the same questions."""
    headers = [
        header_of(
            experiment,
            benchmark,
            None,
            NO_ADAPTER,
            answering_of(benchmark, options.method, options.premise),
            options.shared_prefix,
        )
        for benchmark in experiment.benchmarks
    ]
    for header in headers:
        header.pop(OF_QUESTIONS, None)  # decides nothing
    backbone = experiment.model.backbone
    return present_or_first(
        experiment.output_root / "frozen" / short_hash({"backbone": fingerprint, "questions": headers})
        for fingerprint in (backbone.fingerprint(), backbone.former_fingerprint())
    )


def evaluate_frozen(
    experiment: Experiment, options: AnsweringOptions = AnsweringOptions()
) -> tuple[Path, dict[str, Score]]:
    """Evaluates the untouched backbone; what is there is not answered again.

    Returns:
        The folder and the scores by set.
    """
    folder = started_ranks(experiment).of_first(lambda: frozen_folder(experiment, options))
    method = experiment.model.method
    if experiment.model.backbone.is_loaded:
        method.detach(experiment.model.backbone)
    try:
        return folder, answer_and_score(experiment, folder, None, NO_ADAPTER, frozenset(method.part_names()), options)
    finally:
        if experiment.model.backbone.is_loaded:
            method.attach(experiment.model.backbone)


def known_frozen(experiment: Experiment, options: AnsweringOptions) -> tuple[Path, dict[str, Score]] | None:
    """Returns the folder and the scores of the untouched model, if it has answered the same questions before."""
    folder = frozen_folder(experiment, options)
    files = {benchmark.name: prediction_file(folder, benchmark.name) for benchmark in experiment.benchmarks}
    if not all(path.is_file() for path in files.values()):
        return None
    return folder, {name: score_file(path)[1] for name, path in files.items()}


def evaluate_tuned(
    experiment: Experiment,
    folder: Path,
    knocked_out: AbstractSet[str] = frozenset(),
    options: AnsweringOptions = AnsweringOptions(),
) -> dict[str, Score]:
    """Evaluates the loaded, attached method.

    Args:
        experiment: Its model is loaded and holds the adapter.
        folder: Where predictions and scores go.
        knocked_out: Parts that are left out.
        options: How the evaluation is made.
    """
    model = experiment.model
    model.method.attach(model.backbone, without=knocked_out)
    toggles = {**model.method.toggles(), **dict.fromkeys(sorted(knocked_out), False)}
    if knocked_out:
        toggles["knocked_out"] = ", ".join(sorted(knocked_out))
    adapter = hash_tensors(declared_tensors(model.method))
    try:
        scores = answer_and_score(experiment, folder, adapter, toggles, knocked_out, options)
    finally:
        model.method.attach(model.backbone)
    started_ranks(experiment).of_first(lambda: write_adapter_cards(folder))  # where the folder is the run's own
    return scores


def answer_and_score(
    experiment: Experiment,
    folder: Path,
    adapter: str | None,
    toggles: Toggles,
    knocked_out: AbstractSet[str],
    options: AnsweringOptions,
) -> dict[str, Score]:
    """Answers what is not answered yet, every process its share, and scores every file in the first process.

    Raises:
        BadInputError: If answers are there that were made otherwise, or processes see other questions; before the first
            question is asked.
    """
    ranks = started_ranks(experiment)
    waiting: list[tuple[BenchmarkDataModule, Answering, PartialPredictions]] = []
    for benchmark in experiment.benchmarks:
        answering = answering_of(benchmark, options.method, options.premise)
        header = header_of(experiment, benchmark, adapter, toggles, answering, options.shared_prefix)
        ranks.refuse_unless_same(header, str(benchmark.root), f"what decides the answers of {benchmark.name}")
        there = PartialPredictions(prediction_file(folder, benchmark.name), header)
        if ranks.of_first(bound(known_to_be_answered, there, options)):
            say(f"already answered: {there.path}")
        else:
            waiting.append((benchmark, answering, there))
    for benchmark, answering, there in waiting:
        if not experiment.model.backbone.is_loaded:
            experiment.model.configure_model()
            experiment.model.method.attach(experiment.model.backbone, without=knocked_out)
        answer_alone(experiment, benchmark, answering, there, options, ranks)
    return ranks.of_first(lambda: scored_files(folder, [benchmark.name for benchmark in experiment.benchmarks]))


def scored_files(folder: Path, names: Sequence[str]) -> dict[str, Score]:
    """Scores the prediction files of sets and keeps what comes out; returns the scores by set."""
    scores: dict[str, Score] = {}
    for name in names:
        header, scored = score_file(prediction_file(folder, name))
        write_score(folder, header, scored)
        scores[name] = scored
    return scores


def known_to_be_answered(partial: PartialPredictions, options: AnsweringOptions) -> bool:
    """Tells whether a set needs no answers; what a killed process has left of a lock is gone then."""
    if not is_answered(partial, options):
        return False
    remove_if_free(partial.path)
    return True


def is_answered(partial: PartialPredictions, options: AnsweringOptions) -> bool:
    """Tells whether a set is answered already and need not be answered again.

    Raises:
        BadInputError: If answers that were made otherwise are there and are to be kept.
    """
    if options.force:
        return False
    try:
        partial.answered()
        if not partial.path.is_file():
            return False
        refuse_other_header(partial.path, read_predictions(partial.path).header, partial.header)
    except BadInputError:
        if options.on_other == "refuse":
            raise
        return False
    return True


def answer_alone(
    experiment: Experiment,
    benchmark: BenchmarkDataModule,
    answering: Answering,
    partial: PartialPredictions,
    options: AnsweringOptions,
    ranks: RankGroup,
) -> None:
    """Answers one set unless another job, which is waited for, has done so meanwhile.

    Runs of several seeds that are started together share the untouched model's answers.
    """
    with alone_in_file(partial.path, benchmark.name, ranks) as still_alone:
        answered = ranks.of_first(lambda: answered_before(partial, options))
        if answered is None:
            say(f"already answered: {partial.path}")
            return
        benchmark.answered = answered
        # Asked of the backbone as it is: a knocked-out part may be the one that stood in the way.
        benchmark.by_picture = options.shared_prefix and experiment.model.backbone.shares_prefix()
        answer(experiment, benchmark, answering, partial, still_alone, ranks)


@contextmanager
def alone_in_file(path: Path, name: str, ranks: RankGroup) -> Iterator[Callable[[], None]]:
    """Keeps other jobs from answering into a file while the block runs; the first process locks it for all of this one.

    Yields:
        A check that nobody else has come to the file, which raises in the first process if somebody has.
    """
    checks: list[Callable[[], None]] = []
    with ExitStack() as held:

        def take() -> None:
            waits = locked(path, on_wait=lambda: say(f"another process answers {name}: waiting for it"))
            checks.append(held.enter_context(waits).check)

        ranks.of_first(take)

        def check() -> None:
            for each in checks:
                each()

        yield check


def answered_before(partial: PartialPredictions, options: AnsweringOptions) -> frozenset[str] | None:
    """Returns which questions are answered already, or None if all are; answers of another evaluation are removed."""
    if is_answered(partial, options):
        return None
    if options.force or not goes_on(partial):
        partial.remove()
    return frozenset(partial.answered())


def goes_on(partial: PartialPredictions) -> bool:
    """Tells whether the answers under way, if there are any, are of this evaluation."""
    try:
        partial.answered()
    except BadInputError:
        return False
    return True


def answer(
    experiment: Experiment,
    benchmark: BenchmarkDataModule,
    answering: Answering,
    partial: PartialPredictions,
    still_alone: Callable[[], None],
    ranks: RankGroup,
) -> None:
    """Answers what is left of one set with the model as it is, unless another process has come to answer it, too."""
    questions, model = benchmark.questions(), experiment.model
    left = len(questions) - len(benchmark.answered)
    is_frozen = partial.header["adapter"] is None
    say(
        f"answering {left:,} questions of {benchmark.name} with "
        + ("the untouched model" if is_frozen else f"the tuned model: {short_path(partial.path.parents[1])}")
        + (f", {len(questions) - left:,} are answered" * (left < len(questions)))
        + (f", on {ranks.size} devices" * (ranks.size > 1))
    )
    model.answering = answering
    if left:
        writer = PredictionWriter(partial, questions)
        progress = SampleProgressBar(f"{benchmark.name}, {'frozen' if is_frozen else 'tuned'}", left, ranks.count)
        stop = StopAfterBatch(ranks.stop_code)
        trainer = answering_trainer(experiment, [LockCheck(still_alone), writer, stop, progress])
        try:
            ranks.together(lambda: trainer.predict(model, datamodule=benchmark, return_predictions=False))
        except SystemExit:  # a signal: StopAfterBatch
            if ranks.rank == 0:
                say(
                    f"stopped after {len(partial.answered()):,} of {len(questions):,} questions of {benchmark.name}: "
                    "the same command goes on, but for --force, which starts over"
                )
            raise
        finally:
            model.answering = None  # a Trainer's own predict asks as its set says
    near_ties = ranks.of_first(lambda: finished(partial, [question.id for question in questions], still_alone))
    if near_ties:
        limit = near_tie_limit(model.backbone.dtype_name)
        say(f"{near_ties:,} of {len(questions):,} answers hang on less than {limit:g}: rounding may change them")


def finished(partial: PartialPredictions, ids: Sequence[str], still_alone: Callable[[], None]) -> int:
    """Makes one file of all processes' answers; returns how many of them rounding may change.

    Raises:
        EnvironmentFailure: If answers of other processes are not to be seen here.
    """
    still_alone()
    until = time.monotonic() + SEEN_WITHIN
    while missing := set(ids).difference(partial.answered()):
        if time.monotonic() > until:
            raise EnvironmentFailure(
                f"{len(missing):,} of {len(ids):,} answers, written by other processes, are not to be seen here",
                where=str(partial.path.parent),
                expected="one file system for all nodes",
                hint="the same command answers what is missing",
            )
        time.sleep(1)
    partial.finish(ids)
    return sum("near_tie" in row for row in read_predictions(partial.path).predictions)
