"""``m2pt attribution``: which patches a tuned run's answer hangs on, and a check of that.

Attributes the probability of a token of the greedy answer to the picture's patches with captum, then deletes patches:
the most attributed first must lower the probability sooner than random orders do. Writes a picture and all numbers into
RUN/figures/attribution.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from data_modules.benchmark import BenchmarkDataModule
from experiments.commands.attention import NOT_IN_NAMES
from experiments.commands.evaluate import choose_benchmarks
from experiments.configuration.cli import Experiment, split_arguments
from experiments.inspection.attention_pictures import draw_overlay, png, quiet_pyplot, shortened, without_formulas
from experiments.inspection.attention_samples import (
    chosen_questions,
    picture_of,
    question_batch,
    token_text,
    with_answer,
)
from experiments.inspection.attribution_methods import (
    AttributionMethod,
    answer_probability,
    patch_attribution,
    require_captum,
)
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.prepare import check_experiment, require_benchmarks
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.inspection.deletion import DeletionCheck, deletion_check
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import VerbParser, say

RANDOM_ORDERS = 20


def argument_parser() -> argparse.ArgumentParser:
    """Returns the flags that are not part of an experiment."""
    parser = VerbParser(
        prog="m2pt attribution",
        description=__doc__,
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, help="a tuned run's folder")
    parser.add_argument("--sample", nargs="+", required=True, metavar="SET[:ID]", help="questions, such as vsr:test/1")
    parser.add_argument(
        "--method", choices=get_args(AttributionMethod), default="occlusion", help="default: %(default)s"
    )
    parser.add_argument(
        "--answer-token", type=int, default=0, metavar="N", help="which token of the answer, from 0 (default)"
    )
    parser.add_argument("--data.root", dest="data_root", type=Path, metavar="DIR", help="sets are in DIR/<name>")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder (default: RUN/figures/attribution)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = split_arguments(argument_parser(), arguments)
    require_captum()
    experiment = experiment_of_run(own.run, rest)
    require_benchmarks(experiment)
    choose_benchmarks(experiment, None, own.data_root)
    check_experiment(experiment)
    chosen = chosen_questions(experiment.benchmarks, own.sample)
    load_run(own.run, experiment)
    experiment.model.eval()
    experiment.model.compare_with_library("answering")
    folder = own.output or own.run / "figures" / "attribution"
    folder.mkdir(parents=True, exist_ok=True)
    for benchmark, question in chosen:
        attribute(experiment, benchmark, question, own.method, own.answer_token, folder)
    say(f"pictures and numbers: {folder}")
    return ExitCode.DONE


def attribute(
    experiment: Experiment,
    benchmark: BenchmarkDataModule,
    question: Question,
    method: AttributionMethod,
    place: int,
    folder: Path,
) -> None:
    """Attributes and checks one question, and writes what came out.

    Raises:
        BadInputError: If the answer has no such token.
    """
    backbone, processor = experiment.model.backbone, benchmark.processor
    batch = question_batch(benchmark, question).to(experiment.model.device)
    answer = greedy_answers(backbone, batch, benchmark.max_new_tokens, processor.eos_token_id)[0].token_ids
    if not 0 <= place < len(answer):
        raise BadInputError(
            f"the answer to {question.id} has {len(answer)} tokens",
            where="command line: --answer-token",
            expected=f"0 to {len(answer) - 1}" if answer else "a question that is answered",
        )
    probability = answer_probability(backbone, with_answer(batch, answer[:place]), answer[place])
    edge = round(backbone.shape.patches**0.5)
    pixels = batch.pixel_values[0]
    attribution = patch_attribution(method, probability, pixels, edge)
    check = deletion_check(probability, pixels, attribution, RANDOM_ORDERS)
    token = token_text(processor, answer[place]).strip()
    facts = {
        "set": benchmark.name,
        "id": question.id,
        "question": question.text,
        "answer": processor.decode(answer),
        "token": token,
        "method": method,
    }
    name = NOT_IN_NAMES.sub("-", f"{benchmark.name}-{question.id}-{method}")
    numbers = json.dumps({**facts, **numbers_of(attribution, check)}, indent=1) + "\n"
    write_atomically(folder / f"{name}.json", numbers.encode())
    write_atomically(
        folder / f"{name}.png", attribution_figure(facts, picture_of(pixels, processor), attribution, check)
    )
    say(f"{benchmark.name} {question.id}: “{token}”, {verdict(check)}")


def numbers_of(attribution: Tensor, check: DeletionCheck) -> dict[str, Any]:
    """Returns everything that was computed, for programs."""
    return {
        "attribution": attribution.tolist(),
        "deletion_curve": check.attributed.tolist(),
        "random_deletion_curves": check.random.tolist(),
        "area": check.area,
        "random_areas": check.random_areas.tolist(),
        "random_orders_beaten": check.orders_beaten,
    }


def verdict(check: DeletionCheck) -> str:
    """Returns the check's outcome in words."""
    return (
        f"area under the deletion curve {check.area:.3f}, random orders {float(check.random_areas.mean()):.3f} "
        f"(sooner than {100 * check.orders_beaten:.0f}% of {len(check.random)})"
    )


def attribution_figure(facts: dict[str, str], picture: Any, attribution: Tensor, check: DeletionCheck) -> bytes:
    """Returns a PNG: the picture, the patches that speak for the answer, and the deletion curves."""
    pyplot = quiet_pyplot()
    figure, axes = pyplot.subplots(
        1, 3, figsize=(9.6, 3.3), gridspec_kw={"width_ratios": [1, 1, 1.45]}, layout="constrained"
    )
    axes[0].imshow(picture, interpolation="nearest")
    axes[0].set_title(f"answers “{shortened(facts['answer'], 24)}”", fontsize=9)
    draw_overlay(axes[1], picture, attribution.clamp(min=0).numpy())
    token = without_formulas(facts["token"])
    axes[1].set_title(f"for “{token}”, {facts['method'].replace('_', ' ')}", fontsize=9)
    axes[1].set_xlabel(
        f"highest {float(attribution.max()):.3f}; against it (not shown): {float(attribution.min()):.3f}", fontsize=7
    )
    for cell in axes[:2]:
        cell.set_xticks([])
        cell.set_yticks([])
    deleted, low = range(len(check.attributed)), check.random.amin(dim=0).numpy()
    axes[2].fill_between(deleted, low, check.random.amax(dim=0).numpy(), color="#c4c4c4", label="random: range")
    axes[2].plot(deleted, check.random.mean(dim=0).numpy(), color="#666666", linestyle="--", label="random: mean")
    axes[2].plot(deleted, check.attributed.numpy(), color="#D55E00", linewidth=2, label="most attributed first")
    axes[2].set_xlabel("deleted patches", fontsize=8)
    axes[2].set_title(f"probability of “{token}”", fontsize=9)
    axes[2].legend(fontsize=7, framealpha=0.9)
    axes[2].tick_params(labelsize=7)
    axes[2].spines[["top", "right"]].set_visible(False)
    axes[2].set_ylim(0, 1)
    figure.suptitle(f"{facts['set']} {facts['id']}: {shortened(facts['question'], 90)}", fontsize=10)
    return png(figure)
