"""Some samples of a set as the model reads them, and what is said of the set above them."""

from collections.abc import Sequence

from data_modules.base import DataModule
from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from experiments.datasets.rendered_sample import RenderedSample, rendered
from experiments.datasets.spread import spread_positions
from lightning_m2pt.inputs.picture_layout import RunRows
from lightning_m2pt.inputs.samples import Sample


def rendered_set(
    data: DataModule, count: int, run_rows: RunRows, room: int
) -> tuple[tuple[str, ...], tuple[RenderedSample, ...]]:
    """Returns facts of a set, a line each, and some of its samples, spread over it.

    Args:
        data: The set, connected.
        count: Samples at most.
        run_rows: What a picture's rows are in the language model.
        room: How many rows the language model takes behind the learned ones.

    Raises:
        BadInputError: If the set cannot be read, or a sample cannot be encoded.
    """
    samples = samples_of(data)
    chosen = [samples[position] for position in spread_positions(len(samples), count)]
    limits = f"{room:,} rows, which the language model takes behind the prompts"
    if isinstance(data, InstructionDataModule):
        notes = data.notes
        what, limits = "samples to train on", f"{data.max_text_length:,} tokens (max_text_length), or than {limits}"
    else:
        notes, what = (), "questions, as they are asked"
    facts = (
        *notes,
        f"{len(chosen):,} of {len(samples):,} {what}",
        f"template {data.template_label}",
        f"nothing is cut off: what is longer than {limits}, is refused",
    )
    return facts, tuple(rendered(sample, data, run_rows, room) for sample in chosen)


def samples_of(data: DataModule) -> Sequence[Sample]:
    """Returns what is trained on, or what is asked.

    Raises:
        BadInputError: If the set cannot be read.
    """
    if isinstance(data, InstructionDataModule):
        return data.read_once()[0]
    assert isinstance(data, BenchmarkDataModule)
    return data.asked_samples()
