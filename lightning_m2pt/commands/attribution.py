"""Runs ``m2pt attribution``; its flags and what it is for are in ``parsers``."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.commands.parsers.attribution import argument_parser
from lightning_m2pt.commands.questions import file_names, model_and_questions
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inspection.attention import refuse_shrunk
from lightning_m2pt.inspection.attribution import (
    AttributionMethod,
    answer_probability,
    patch_attribution,
    require_captum,
)
from lightning_m2pt.inspection.deletion import DeletionCheck, deletion_check
from lightning_m2pt.inspection.pictures import draw_overlay, png, quiet_pyplot, shortened, without_formulas
from lightning_m2pt.inspection.samples import InspectedQuestion, picture_of, token_text, with_answer
from lightning_m2pt.runs.tuned_model import tuned_model
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say

RANDOM_ORDERS = 20


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    require_captum()
    if own.image is None and not own.sample:
        raise BadInputError("no question is named", where="command line", expected="--sample SET[:ID], or --image FILE")
    tuned = tuned_model(own.run, own.adapter)
    folder = tuned.results("attribution", own.output)
    model, questions = model_and_questions(own, rest, "m2pt attribution", lambda _: None)
    for question in questions:
        refuse_tiles(question)
    tuned.load(model, [question.template for question in questions])
    refuse_shrunk(model.backbone.attachment)
    model.eval()
    model.compare_with_library("answering")
    folder.mkdir(parents=True, exist_ok=True)
    processor = model.backbone.processor()
    for question, name in zip(questions, file_names(questions), strict=True):
        asked = replace(question, batch=question.batch.to(model.device))
        attribute(model.backbone, processor, asked, own.method, own.answer_token, folder / name)
    say(f"pictures and numbers: {folder}")
    return ExitCode.DONE


def refuse_tiles(question: InspectedQuestion) -> None:
    """Refuses a question whose picture is no single square: its patches have no one place to be blanked at.

    Raises:
        BadInputError: If it is several tiles, or a grid of its own size.
    """
    if question.batch.picture_sizes is not None or len(question.batch.pixel_values) != 1:
        raise BadInputError(
            f"the picture of {question.id} is read as several tiles, and patches of one square are attributed to",
            where="model.backbone",
            expected="a model that reads one square of each picture, such as LLaVA-1.5",
        )


def attribute(
    backbone: Backbone,
    processor: Processor,
    question: InspectedQuestion,
    method: AttributionMethod,
    place: int,
    stem: Path,
) -> None:
    """Attributes and checks one question, and writes what came out into files whose paths begin with ``stem``.

    Raises:
        BadInputError: If the answer has no such token.
    """
    batch = question.batch
    answer = greedy_answers(backbone, batch, question.max_new_tokens, *question.end_token_ids)[0].token_ids
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
        "set": question.set_name,
        "id": question.id,
        "question": question.text,
        "answer": processor.decode(answer),
        "token": token,
        "method": method,
    }
    file = stem.with_name(f"{stem.name}-{method}")
    numbers = json.dumps({**facts, **numbers_of(attribution, check)}, indent=1) + "\n"
    write_atomically(file.with_name(f"{file.name}.json"), numbers.encode())
    read = backbone.prompted_pixels(pixels[None])[0].detach()
    picture = attribution_figure(facts, picture_of(read, processor), attribution, check)
    write_atomically(file.with_name(f"{file.name}.png"), picture)
    say(f"{question.set_name} {question.id}: “{token}”, {verdict(check)}")


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
    cell = len(picture) // len(attribution)  # whole pixels, as patches are cut; a remainder is behind the last
    draw_overlay(axes[1], picture, attribution.clamp(min=0).numpy(), cell)
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
