"""Runs ``m2pt backbone``; its flags and what it is for are in ``parsers``."""

import argparse
import logging
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue

from rich.console import Console

from experiments.alignment.export import export_projector
from experiments.alignment.recipe import run_alignment
from experiments.alignment.settings import ALIGNMENTS
from experiments.backbone_recipe.architecture import RecipeModel
from experiments.backbone_recipe.export import RecipeResult, export_backbone
from experiments.backbone_recipe.gates import Gate, GateReport, measure_gates
from experiments.backbone_recipe.joint_stage import build_backbone
from experiments.backbone_recipe.plan import INDEPENDENT_CHAINS, LAST_CHAIN, run_chain, run_named_stage, stage_files
from experiments.backbone_recipe.progress import RecipeProgress
from experiments.backbone_recipe.settings import RECIPES, RecipeSettings
from experiments.backbone_recipe.stage_files import StageRecord
from experiments.backbone_recipe.tokenizer import build_tokenizer
from experiments.backbone_recipe.training_loop import ProgressReport, StageProgress, load_part, use_one_thread
from experiments.commands.parsers.backbone import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode

OUTPUT_FOLDER = Path(__file__).parents[2] / "lightning_m2pt" / "embedded"
QUEUE_SECONDS = 0.5

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code.

    Raises:
        BadInputError: If a folder of the command line is a file, or the seed is negative.
    """
    options = argument_parser().parse_args(arguments)
    for flag, folder in (("--output", options.output), ("--work", options.work)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise BadInputError(f"{folder} is not a folder", where=f"command line: {flag}", expected="a folder")
    if options.seed is not None and options.seed < 0:
        raise BadInputError("the seed is negative", where="command line: --seed", expected="0 or more")
    console = Console(stderr=True)
    work = options.work / options.name / ("shortened" if options.shortened else "")
    output = options.output or (None if options.shortened else OUTPUT_FOLDER / options.name)
    if options.name in ALIGNMENTS:
        align(options, work, output, console)
        return ExitCode.DONE
    settings = RECIPES[options.name]
    if options.seed is not None:
        settings = replace(settings, seed=options.seed)
    with RecipeProgress(console) as progress:
        if options.shortened:
            result, backbone = run_recipe(settings.shortened(), work, progress)
        else:
            result, backbone = run_full_recipe(settings, work, progress)
    print_gates(result.gates.gates, console)
    if output is not None:
        export_backbone(backbone, result, output)
        console.print(f"written to {output}")
    return ExitCode.DONE


def align(options: argparse.Namespace, work: Path, output: Path | None, console: Console) -> None:
    """Aligns the projector of a pair and writes it.

    Args:
        options: Of the command line.
        work: Where pictures, run and projectors are.
        output: Where the finished projector goes; None writes none.
        console: Where the gates are shown.
    """
    settings = ALIGNMENTS[options.name]
    if options.seed is not None:
        settings = replace(settings, seed=options.seed)
    result = run_alignment(settings.shortened() if options.shortened else settings, work)
    print_gates(result.gates.gates, console)
    if output is not None:
        export_projector(result, output)
        console.print(f"written to {output}")


def print_gates(gates: Iterable[Gate], console: Console) -> None:
    """Shows what was demanded and what was reached."""
    for gate in gates:
        console.print(f"{gate.name}: {gate.figure:.3f} of {gate.threshold:.2f}, {gate.verdict}")


def run_full_recipe(settings: RecipeSettings, work: Path, report: ProgressReport) -> tuple[RecipeResult, RecipeModel]:
    """Runs the recipe, then its shortened form, whose losses are recorded for others to compare theirs with."""
    result, backbone = run_recipe(settings, work, report)
    shortened, _ = run_recipe(settings.shortened(), work / "shortened", report)
    losses = {stage.stage: stage.losses for stage in shortened.stages}
    return RecipeResult(settings, result.stages, result.gates, losses), backbone


def run_recipe(settings: RecipeSettings, work: Path, report: ProgressReport) -> tuple[RecipeResult, RecipeModel]:
    """Runs all stages that are not finished in the work folder, and measures the gates.

    Args:
        settings: The recipe.
        work: Where checkpoints and finished stages are.
        report: Called at every recorded step.

    Returns:
        What was done, and the finished backbone.
    """
    use_one_thread()
    stages = run_independent_chains(settings, work, report)
    stages += run_chain(LAST_CHAIN, settings, work, report)
    backbone = load_finished_backbone(settings, work)
    gates: GateReport = measure_gates(backbone, settings)
    return RecipeResult(settings, stages, gates, {}), backbone


def run_independent_chains(settings: RecipeSettings, work: Path, report: ProgressReport) -> list[StageRecord]:
    """Runs the stages before the joint one, chains that need nothing from each other in processes of their own."""
    names = [stage for chain in INDEPENDENT_CHAINS for stage in chain]
    if all(stage_files(stage, settings, work).finished() for stage in names):
        return [run_named_stage(stage, settings, work, report) for stage in names]
    # Must be set before the processes start: OpenMP reads it when torch is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(INDEPENDENT_CHAINS), mp_context=context) as pool:
        queue: Queue[StageProgress] = manager.Queue()
        futures = [pool.submit(run_chain, chain, settings, work, queue.put) for chain in INDEPENDENT_CHAINS]
        while wait(futures, timeout=QUEUE_SECONDS).not_done or not queue.empty():
            try:
                report(queue.get(timeout=QUEUE_SECONDS))
            except Empty:
                continue
        return [record for future in futures for record in future.result()]


def load_finished_backbone(settings: RecipeSettings, work: Path) -> RecipeModel:
    """Returns the backbone that the last stage left in the work folder, ready for use."""
    backbone = build_backbone(settings, build_tokenizer(settings.architecture.maximum_positions))
    tensors = stage_files(LAST_CHAIN[-1], settings, work).weights()
    for part, module in (
        ("vision", backbone.vision),
        ("projector", backbone.projector),
        ("language", backbone.language),
    ):
        load_part(module, tensors, part)
        module.eval()
        module.requires_grad_(False)
    return backbone
