"""The loss of a template by the pass that trains: what ``m2pt validate`` says of the same samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import M2PTError
from lightning_m2pt.inputs.collate import encoded_sample
from lightning_m2pt.inputs.named_templates import Template, read_prompt
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompt_search.scored_samples import batch_of
from lightning_m2pt.tuning.losses import supervised_rows

SAMPLES_AT_ONCE = 16


def loss_in_template(backbone: Backbone, processor: Processor, samples: Sequence[Sample], template: Template) -> float:
    """Returns the loss per supervised token of samples that are written in a template.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        processor: Of the backbone.
        samples: With answers.
        template: How they become texts, a prompt's words among them.

    Raises:
        BadInputError: If a text or a picture cannot be read.
    """
    texts = processor.encode_all(samples, template)
    total, tokens = 0.0, 0
    for begin in range(0, len(samples), SAMPLES_AT_ONCE):
        some = slice(begin, begin + SAMPLES_AT_ONCE)
        encoded = [
            encoded_sample(sample, text, processor, sample.source)
            for sample, text in zip(samples[some], texts[some], strict=True)
        ]
        with torch.inference_mode():
            losses = supervised_rows(backbone, batch_of(encoded, processor, backbone)).losses
        total, tokens = total + float(losses.double().sum()), tokens + len(losses)
    return total / tokens


def measured_prompt(
    backbone: Backbone,
    processor: Processor,
    template: Template,
    content: bytes,
    asked: Mapping[str, Sequence[Sample]],
) -> dict[str, dict[str, float]]:
    """Returns the loss per supervised token without and with a prompt's file, which is read as any verb would read it.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        processor: Of the backbone.
        template: What the conversations are written in.
        content: Of the file.
        asked: Conversations by a name; those without any are left out.

    Returns:
        ``untouched`` and ``prompt`` by the name.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "prompt.yaml"
        path.write_bytes(content)
        worded = read_prompt(path).on(template)
    return {
        name: {
            "untouched": loss_in_template(backbone, processor, samples, template),
            "prompt": loss_in_template(backbone, processor, samples, worded),
        }
        for name, samples in asked.items()
        if samples
    }


def refuse_other_loss(searched: float, again: float, dtype: str, record: Path) -> None:
    """Refuses a result that is not what was searched: no fault of the user's.

    Args:
        searched: What the search found.
        again: What the file's text loses, by the pass that trains.
        dtype: Of the backbone.
        record: The search's record, which stays.

    Raises:
        M2PTError: If they differ by more than rounding.
    """
    # In bfloat16 the two ways round otherwise. A loss that is no number is none that was found.
    limit = (1e-4 if dtype in ("float32", "float64") else 5e-2) * max(1.0, abs(again))
    if not abs(again - searched) <= limit:
        raise M2PTError(
            f"the prompt's text has a loss of {again:.6f}, and the search measured {searched:.6f}",
            where=str(record),
            expected=f"the same to {limit:.0e}: the search scores wrongly, and no prompt's file is written",
            hint="this is a fault of the program and not of its input: please report it with this record",
        )
