"""The loss of a template by the pass that trains: what ``m2pt validate`` says of the same samples."""

from collections.abc import Sequence

import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.collate import encoded_sample
from lightning_m2pt.inputs.named_templates import Template
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
