"""Runs ``m2pt attention``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.commands.parsers.attention import argument_parser
from lightning_m2pt.commands.questions import file_names, model_and_questions
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inspection.arrays import attention_arrays, attention_names
from lightning_m2pt.inspection.attention import refuse_missing_layers
from lightning_m2pt.inspection.page import attention_page
from lightning_m2pt.inspection.pictures import activation_figure, overlay_figure
from lightning_m2pt.inspection.samples import ShownSample, shown_sample
from lightning_m2pt.runs.tuned_model import tuned_model
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say
from lightning_m2pt.tuning.module import TuningModule

PAGE = "attention.html"


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))

    def check_layers(model: TuningModule) -> None:
        shape = model.backbone.shape
        if own.layer is not None:
            refuse_missing_layers(own.layer, max(shape.text_layers, shape.vision_layers - 1))

    tuned = tuned_model(own.run, own.adapter)
    folder = tuned.results("attention", own.output)
    model, questions = model_and_questions(own, rest, "m2pt attention", check_layers)
    tuned.load(model, [question.template for question in questions])
    model.eval()
    model.compare_with_library("answering")
    folder.mkdir(parents=True, exist_ok=True)
    processor = model.backbone.processor()
    samples = []
    for question, name in zip(questions, file_names(questions), strict=True):
        sample = shown_sample(model, processor, question, own.layer)
        samples.append(sample)
        write_sample(folder, name, sample, own.token)
        say_missing_words(sample, own.token)
        answers = ", ".join(f"{side.name}: {side.answer}" for side in sample.sides)
        say(f"{question.set_name} {question.id}: {question.text} ({answers})")
    if all(side.attention.language for sample in samples for side in sample.sides):
        write_atomically(folder / PAGE, attention_page(samples).encode())
        say(f"page:     {folder / PAGE}")
    say(f"pictures: {folder}/*.png\narrays:   {folder}/*.safetensors, named in *.json")
    return ExitCode.DONE


def write_sample(folder: Path, name: str, sample: ShownSample, words: Sequence[str]) -> None:
    """Writes the pictures and arrays of one sample, whose files' names begin with ``name``."""
    write_atomically(folder / f"{name}.safetensors", attention_arrays(sample))
    write_atomically(folder / f"{name}.json", attention_names(sample).encode())
    if sample.sides[0].attention.language:
        write_atomically(folder / f"{name}-language.png", activation_figure(sample, "language"))
    tiles = sample.sides[0].attention.vision
    if tiles and tiles[0]:
        write_atomically(folder / f"{name}-vision.png", activation_figure(sample, "vision"))
    if sample.pictures:
        write_atomically(folder / f"{name}-overlay.png", overlay_figure(sample, words))


def say_missing_words(sample: ShownSample, words: Sequence[str]) -> None:
    """Says which words are no token of a question or of its answers, so that nothing is drawn for them."""
    tokens = {token.strip().lower() for side in sample.sides for token in side.tokens}
    missing = [word for word in words if word.lower() not in tokens]
    if missing:
        say(f"note: no token of {sample.question.id} is {', '.join(missing)}: nothing is laid over the picture for it")
