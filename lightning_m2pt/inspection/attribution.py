"""Patch attributions by captum, of the probability of one answer token."""

from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inspection.deletion import Probability

AttributionMethod: TypeAlias = Literal["occlusion", "integrated_gradients"]
PICTURES_AT_ONCE = 16
STEPS = 50
"""Points of the path from the blank picture to the real one; captum's own default."""


def require_captum() -> None:
    """Looks for captum without loading a model.

    Raises:
        EnvironmentFailure: If it is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("captum") is None:
        raise EnvironmentFailure(
            "captum is not installed",
            where="m2pt attribution",
            expected="the extra `attribution`",
            hint="pip install -e '.[attribution]'",
        )


def answer_probability(backbone: Backbone, batch: Batch, token: int) -> Probability:
    """Returns a function from pictures (n, 3, H, W) to the probability (n,) of a token behind a batch's one text.

    Args:
        backbone: A loaded backbone, with or without an attached method, in evaluation mode.
        batch: One question, with the answer's earlier tokens behind it.
        token: The answer token.
    """

    def probability(pictures: Tensor) -> Tensor:
        number = len(pictures)
        copies = replace(
            batch,
            pixel_values=pictures,
            input_ids=batch.input_ids.expand(number, -1),
            labels=batch.labels.expand(number, -1),
            spans=batch.spans.expand(number, -1),
            sample_ids=batch.sample_ids * number,
            tasks=batch.tasks * number,
        )
        last = backbone(copies).hidden_states[:, -1]
        return backbone.logits(last).float().softmax(dim=-1)[:, token]

    return probability


def patch_attribution(method: AttributionMethod, probability: Probability, pixels: Tensor, edge: int) -> Tensor:
    """Returns (edge, edge): how much each patch speaks for the answer.

    Args:
        method: ``occlusion``: how far the probability falls when the patch alone is blank; ``integrated_gradients``:
            the patch's share of the difference between the picture and a blank one (Sundararajan et al., 2017).
        probability: The model.
        pixels: (3, H, W), normalised; 0 is blank.
        edge: Patches along one side.
    """
    from captum.attr import IntegratedGradients, Occlusion

    height, width = pixels.shape[-2] // edge, pixels.shape[-1] // edge
    if method == "occlusion":
        window = (pixels.shape[0], height, width)
        with torch.no_grad():
            values = Occlusion(probability).attribute(
                pixels[None],
                sliding_window_shapes=window,
                strides=window,
                baselines=0.0,
                perturbations_per_eval=PICTURES_AT_ONCE,
            )
        # Every pixel of a window has the window's value.
        return avg_pool2d(values.mean(dim=1), (height, width))[0].cpu()
    values = IntegratedGradients(probability).attribute(
        pixels[None], baselines=0.0, n_steps=STEPS, internal_batch_size=PICTURES_AT_ONCE
    )
    sums = avg_pool2d(values.detach().sum(dim=1), (height, width), divisor_override=1)
    return sums[0].float().cpu()
