"""Runs ``m2pt prompts``; its flags and what it is for are in ``parsers``."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import Tensor

from lightning_m2pt.commands.parsers.prompts import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inspection.pixel_prompt_pictures import numbers_of_prompt, prompt_picture, prompted_picture
from lightning_m2pt.inspection.prompt_pictures import prompts_figure
from lightning_m2pt.inspection.prompt_rows import (
    chance_of_nearest,
    chance_of_similarity,
    layer_similarity,
    nearest_words,
    row_norms,
)
from lightning_m2pt.inspection.samples import token_text
from lightning_m2pt.methods.pixel_prompting import PIXEL_PROMPT
from lightning_m2pt.prompts.deep import DeepPrompts
from lightning_m2pt.prompts.pixel_prompt import PixelPrompt
from lightning_m2pt.report.tables.formats import terminal
from lightning_m2pt.runs.metrics_file import METRICS_FILE, STEP, read_metrics
from lightning_m2pt.runs.tuned_model import tuned_model
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.checkout import checkout_module
from lightning_m2pt.system.console import OUT, say
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.regularisers.base import pixel_prompting

NORM = "train/row_norm/"
VISUAL, TEXTUAL = "visual_prompts", "textual_prompts"
WORDS_SHOWN = 3
SCORES = "experiments.runs.word_scores"


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    if own.words < 1:
        raise BadInputError(f"{own.words} is too few", where="command line: --words", expected="at least 1")
    tuned = tuned_model(own.run, own.adapter)
    folder = tuned.results("prompts", own.output)
    scores = opened_scores(own, rest)
    model = tuned.model(rest, "m2pt prompts") if scores is None else scores.experiment.model
    model.backbone.check_files()
    shown = None if own.picture is None else given_picture(model, own.picture)
    tuned.load(model)
    tables, pixels = prompt_tables(model), model.backbone.attachment.pixel_prompt
    if not tables and pixels is None:
        raise BadInputError(
            f"method {model.method.name} has no prompts here",
            where=str(own.run or own.adapter),
            expected=f"a run with {VISUAL}, {TEXTUAL} or {PIXEL_PROMPT}",
        )
    folder.mkdir(parents=True, exist_ok=True)
    if pixels is not None:
        write_pixels(folder, pixels, shown)
    if tables:
        write_rows(folder, model, tables, own.words, own.run)
    if scores is not None:
        write_scores(folder, scores)
    return ExitCode.DONE


def opened_scores(own: Namespace, settings: Sequence[str]) -> Any:  # noqa: ANN401  (a class of the checkout)
    """Returns what measures the words of a run's prompts, or None if that is not asked for; loads no weights.

    Raises:
        BadInputError: If samples are chosen for nothing, there is no checkout, or the run has nothing to measure.
    """
    if own.score_words:
        if min(own.samples, own.sample_seed) < 0:
            raise BadInputError(
                f"{min(own.samples, own.sample_seed)} is negative",
                where="command line: --samples, --sample-seed",
                expected="0 or more; no sample means all",
            )
        module = checkout_module(SCORES, "m2pt prompts --score-words")
        return module.WordScores(own.run, own.adapter, settings, own.samples, own.sample_seed)
    for flag in ("samples", "sample_seed"):
        if getattr(own, flag):
            raise BadInputError(
                "samples are for measuring, and nothing is measured",
                where=f"command line: --{flag.replace('_', '-')}",
                expected="--score-words",
            )
    return None


def write_scores(folder: Path, scores: Any) -> None:  # noqa: ANN401
    """Measures, writes and shows what the words of textual prompts are worth.

    Args:
        folder: Where it goes.
        scores: As ``opened_scores`` returns it; its model is loaded.
    """
    record = scores.measured()
    write_atomically(folder / "words.json", (json.dumps(record, indent=1) + "\n").encode())
    say(terminal([scores.table(record)], OUT.width).rstrip())
    say(f"words:   {folder / 'words.json'}")


def given_picture(model: TuningModule, path: Path) -> Tensor:
    """Returns (B, 3, S, S), normalised: a picture of a file as the tower reads it, or its tiles.

    Raises:
        BadInputError: If it cannot be read, or the method puts nothing into pictures.
    """
    if pixel_prompting(model.method) is None:
        raise BadInputError(
            f"method {model.method.name} puts nothing into a picture",
            where="command line: --picture",
            expected=f"a run with {PIXEL_PROMPT}",
        )
    return model.backbone.processor().pictures([path], "command line: --picture")[0].pixels


def write_pixels(folder: Path, prompt: PixelPrompt, shown: Tensor | None) -> None:
    """Writes the numbers and the pictures of a pixel prompt.

    Args:
        folder: Where they go.
        prompt: The prompt.
        shown: (B, 3, S, S), normalised: a picture, or its tiles, to put the prompt into; None for none.
    """
    numbers = numbers_of_prompt(prompt)
    write_atomically(folder / "pixel_prompt.json", (json.dumps(numbers, indent=1) + "\n").encode())
    write_atomically(folder / "pixel_prompt.png", prompt_picture(prompt))
    say(f"pixels:  {folder / 'pixel_prompt.png'}: 0 is grey, {numbers['largest']:.3g} black or white")
    pictures = [] if shown is None else list(shown)
    for number, each in enumerate(pictures):
        file = folder / (f"picture-{number}.png" if len(pictures) > 1 else "picture.png")
        picture, outside = prompted_picture(prompt, each)
        write_atomically(file, picture)
        say(f"with it: {file}: {outside:.1%} of its numbers are none of a picture's, and clipped here")


def write_rows(folder: Path, model: TuningModule, tables: dict[str, DeepPrompts], words: int, run: Path | None) -> None:
    """Writes and shows what rows of prompts are near to.

    Args:
        folder: Where it goes.
        model: It is loaded, with the prompts attached.
        tables: The prompts by part.
        words: How many nearest words a row has.
        run: The run's folder, if it is one.
    """
    found = inspected(model, tables, words)
    norms = norms_over_training(run / METRICS_FILE) if run else {}
    write_atomically(folder / "prompts.json", (json.dumps({**found, "norms": norms}, indent=1) + "\n").encode())
    write_atomically(folder / "prompts.png", prompts_figure(found, norms))
    if TEXTUAL in found:
        OUT.print(words_table(found[TEXTUAL]))
        say(
            "95% of random rows have a nearest word with a cosine below "
            f"{found[TEXTUAL]['chance_of_nearest']:.2f}. Only layer 0's rows stand where word embeddings stand: below "
            "the line a near word says little."
        )
    say(f"numbers: {folder / 'prompts.json'}\npicture: {folder / 'prompts.png'}")


def prompt_tables(model: TuningModule) -> dict[str, DeepPrompts]:
    """Returns the attached prompts that are there."""
    attachment = model.backbone.attachment
    tables = {VISUAL: attachment.visual_prompts, TEXTUAL: attachment.textual_prompts}
    return {name: prompts for name, prompts in tables.items() if prompts is not None}


def inspected(model: TuningModule, tables: dict[str, DeepPrompts], words: int) -> dict[str, Any]:
    """Returns for each kind of prompts norms and likeness by layer, and for textual ones the nearest words."""
    found: dict[str, Any] = {}
    for name, prompts in tables.items():
        width = prompts.rows[str(prompts.layers[0])].shape[-1]
        found[name] = {
            "layers": prompts.layers,
            "similarity": layer_similarity(prompts).tolist(),
            "chance_of_similarity": chance_of_similarity(prompts.length, width),
            "row_norms": row_norms(prompts),
        }
    if TEXTUAL in tables:
        backbone, prompts = model.backbone, tables[TEXTUAL]
        vocabulary, processor = backbone.token_embedding().weight.detach(), backbone.processor()
        found[TEXTUAL]["chance_of_nearest"] = chance_of_nearest(vocabulary)
        of_layers = {layer: nearest_words(prompts.rows[str(layer)][0], vocabulary, words) for layer in prompts.layers}
        found[TEXTUAL]["nearest_words"] = {
            layer: [
                [[token_text(processor, token), cosine] for token, cosine in zip(ids, cosines, strict=True)]
                for ids, cosines in zip(nearest.token_ids.tolist(), nearest.cosines.tolist(), strict=True)
            ]
            for layer, nearest in of_layers.items()
        }
    return found


def words_table(textual: dict[str, Any]) -> Table:
    """Returns the nearest words of every row; layer 0 stands above a line."""
    table = Table("layer", "row", "nearest words (cosine)")
    for layer, rows in textual["nearest_words"].items():
        for number, words in enumerate(rows):
            shown = ", ".join(f"{word.strip() or '␣'} {cosine:.2f}" for word, cosine in words[:WORDS_SHOWN])
            last = layer == 0 and number == len(rows) - 1
            table.add_row(str(layer), str(number), Text(shown), end_section=last)  # "[/INST]" is no markup
    return table


def norms_over_training(metrics: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns (step, mean length of a row) by part, as ``metrics.csv`` has them; empty where nothing was logged.

    Files of older versions repeat a number in every row until it is measured again: only where it changes is it kept.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for where, row in read_metrics(metrics):
        for name, cell in row.items():
            if not (name.startswith(NORM) and cell):
                continue
            try:
                step, value = int(row[STEP]), float(cell)
            except (KeyError, ValueError) as error:
                raise BadInputError(
                    f"the step or the cell {cell!r:.40} is no number", where=where, expected="a number in every row"
                ) from error
            points = found.setdefault(name.removeprefix(NORM), [])
            if not points or points[-1][1] != value:
                points.append((step, value))
    return found
