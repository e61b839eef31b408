"""``m2pt attention``: where a tuned run's model looks, beside the frozen model, for chosen questions of its sets.

Writes into RUN/figures/attention: for every question pictures (activation of all columns by layer, patch attention laid
over the picture), all probabilities as safetensors with a JSON file of their names, and one page, attention.html, on
which layer, head and token are picked.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.commands.evaluate import choose_benchmarks
from experiments.configuration.cli import split_arguments
from experiments.inspection.attention_arrays import attention_arrays, attention_names
from experiments.inspection.attention_page import attention_page
from experiments.inspection.attention_pictures import activation_figure, overlay_figure
from experiments.inspection.attention_samples import QUESTIONS_BY_DEFAULT, ShownSample, chosen_questions, shown_sample
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.prepare import check_experiment, require_benchmarks
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inspection.attention import refuse_missing_layers
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import VerbParser, say

PAGE = "attention.html"
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def argument_parser() -> argparse.ArgumentParser:
    """Returns the flags that are not part of an experiment."""
    parser = VerbParser(
        prog="m2pt attention", description=__doc__, add_help=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a tuned run's folder")
    parser.add_argument(
        "--sample",
        nargs="+",
        default=[],
        metavar="SET[:ID]",
        help=f"questions, such as vsr:test/1 (default: the first {QUESTIONS_BY_DEFAULT} of the run's first set)",
    )
    parser.add_argument("--layer", nargs="+", type=int, metavar="N", help="layers to keep (default: all)")
    parser.add_argument(
        "--token",
        nargs="+",
        default=[],
        metavar="WORD",
        help="question or answer tokens whose patch attention is laid over the picture (default: the rows that chose "
        "the answer's tokens)",
    )
    parser.add_argument("--data.root", dest="data_root", type=Path, metavar="DIR", help="sets are in DIR/<name>")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder (default: RUN/figures/attention)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = split_arguments(argument_parser(), arguments)
    experiment = experiment_of_run(own.run, rest)
    require_benchmarks(experiment)
    choose_benchmarks(experiment, None, own.data_root)
    shape = experiment.model.backbone.shape
    if own.layer is not None:
        refuse_missing_layers(own.layer, max(shape.text_layers, shape.vision_layers - 1))
    check_experiment(experiment)
    chosen = chosen_questions(experiment.benchmarks, own.sample)
    load_run(own.run, experiment)
    experiment.model.eval()
    experiment.model.compare_with_library("answering")
    folder = own.output or own.run / "figures" / "attention"
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for benchmark, question in chosen:
        sample = shown_sample(experiment, benchmark, question, own.layer)
        samples.append(sample)
        write_sample(folder, sample, own.token)
        say_missing_words(sample, own.token)
        answers = ", ".join(f"{side.name}: {side.answer}" for side in sample.sides)
        say(f"{benchmark.name} {question.id}: {question.text} ({answers})")
    if all(side.attention.language for sample in samples for side in sample.sides):
        write_atomically(folder / PAGE, attention_page(samples).encode())
        say(f"page:     {folder / PAGE}")
    say(f"pictures: {folder}/*.png\narrays:   {folder}/*.safetensors, named in *.json")
    return ExitCode.DONE


def write_sample(folder: Path, sample: ShownSample, words: Sequence[str]) -> None:
    """Writes the pictures and arrays of one sample."""
    name = NOT_IN_NAMES.sub("-", f"{sample.set_name}-{sample.question.id}")
    write_atomically(folder / f"{name}.safetensors", attention_arrays(sample))
    write_atomically(folder / f"{name}.json", attention_names(sample).encode())
    if sample.sides[0].attention.language:
        write_atomically(folder / f"{name}-language.png", activation_figure(sample, "language"))
    if sample.sides[0].attention.vision[0]:
        write_atomically(folder / f"{name}-vision.png", activation_figure(sample, "vision"))
    write_atomically(folder / f"{name}-overlay.png", overlay_figure(sample, words))


def say_missing_words(sample: ShownSample, words: Sequence[str]) -> None:
    """Says which words are no token of a question or of its answers, so that nothing is drawn for them."""
    tokens = {token.strip().lower() for side in sample.sides for token in side.tokens}
    missing = [word for word in words if word.lower() not in tokens]
    if missing:
        say(f"note: no token of {sample.question.id} is {', '.join(missing)}: nothing is laid over the picture for it")
