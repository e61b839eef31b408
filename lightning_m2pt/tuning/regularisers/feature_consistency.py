"""Feature consistency alignment (FCA): rows of a prompted picture stay near those of the picture without its prompt.

Zhang et al., "Exploring the Transferability of Visual Prompting for Multimodal Large Language Models" (CVPR 2024): the
norm of the difference between the rows that enter the language model, so that a prompt does not spoil what other models
read. The official code takes the unsquared L2 norm over a row's numbers, and its mean over rows and pictures.
"""

import copy
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.base import Method
from lightning_m2pt.prompts.pixel_prompt import PixelPrompt
from lightning_m2pt.tuning.regularisers.base import Regulariser, pixel_prompting, wide
from lightning_m2pt.tuning.regularisers.seen_pictures import SeenPictures


class FeatureConsistency(Regulariser):
    """The distance between a picture's rows in the decoder with the pixel prompt and without it.

    Rows are those of patches behind the connector; rows of other prompts are left out, but whatever else the method has
    changed is there in both passes. Without the prompt nothing has a gradient.

    Args:
        weight: How much of it counts; published are 0.005 on rows of 4,096 numbers.
        reference: ``padded``, as published: the picture composed with a prompt of zeros, of a shrunk picture with its
            empty border; ``original``: the picture as it is, whose rows are others where it is shrunk.
        norm: ``published``: as it is, in units of the rows; ``relative``: divided by the mean norm of the same
            picture's rows without the prompt, so that a weight means the same for other models.

    Raises:
        BadInputError: If the weight is not above 0.
    """

    name = "feature_consistency"

    def __init__(
        self,
        weight: float = 0.005,
        reference: Literal["padded", "original"] = "padded",
        norm: Literal["published", "relative"] = "published",
    ) -> None:
        super().__init__(weight)
        self.reference: Literal["padded", "original"] = reference
        self.norm: Literal["published", "relative"] = norm

    def check(self, method: Method, shape: BackboneShape) -> None:
        """Compares it with the method and the backbone.

        Raises:
            BadInputError: If there is no pixel prompt, or the rows of both pictures are not of the same places.
        """
        super().check(method, shape)
        prompting = pixel_prompting(method)
        if self.reference == "original" and prompting is not None and prompting.compose == "shrink":
            raise BadInputError(
                "the rows of a shrunk picture are not those of the original: a patch shows another part of it",
                where="model.regularisers: feature_consistency.reference",
                expected="padded, or compose: overlay of the pixel prompt",
            )

    def before(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Returns (R, D) rows without the pixel prompt.

        They are computed first: a tower whose activations are computed again in the backward pass finds in its hooks
        what the last pass has put there, which has to be the loss's.
        """
        prompt = backbone.attachment.pixel_prompt
        if prompt is None:
            raise RuntimeError("no pixel prompt is attached")
        clean = None if self.reference == "original" else of_zeros(prompt)
        return rows_with(backbone, batch, clean)

    def summed(self, seen: SeenPictures, before: Tensor | None) -> Tensor:
        """Returns the sum over pictures of the mean distance of their rows."""
        assert before is not None
        prompted, clean = wide(seen.rows.rows[seen.patches]), wide(before[seen.patches])
        # Where both are equal, as at the first step from zeros, this norm's gradient is 0; a square root's is not.
        distances = seen.mean_of_patches(torch.linalg.vector_norm(prompted - clean, dim=-1))
        if self.norm == "relative":
            norms = seen.mean_of_patches(torch.linalg.vector_norm(clean, dim=-1))
            distances = distances / norms.clamp(min=torch.finfo(norms.dtype).tiny)
        return seen.sum_over_pictures(distances)

    def deciding(self) -> dict[str, object]:
        """Returns the arguments."""
        return {"name": self.name, "weight": self.weight, "reference": self.reference, "norm": self.norm}

    def kept_bytes(self, shape: BackboneShape, pictures: int, rows: int) -> int:
        """Returns the bytes of the rows without the prompt, and of both and their difference in float32."""
        return rows * shape.text_width * 4 * torch.float32.itemsize


def of_zeros(prompt: PixelPrompt) -> PixelPrompt:
    """Returns a prompt that composes pictures alike, and adds nothing."""
    zeros = copy.deepcopy(prompt)
    with torch.no_grad():
        zeros.delta.zero_()
    return zeros


def rows_with(backbone: Backbone, batch: Batch, prompt: PixelPrompt | None) -> Tensor:
    """Returns the rows of a batch's pictures with another pixel prompt, all else attached as it is, without a gradient.

    What would have a gradient is computed with one, which is dropped at once: without, libraries take other kernels,
    and rows that should be equal would differ by rounding, whose direction has the gradient of any other difference.
    Dropout draws what the next pass will draw, and leaves the generators as they were: both passes drop the same, and
    a run draws what it would draw without this.

    Args:
        backbone: The backbone.
        batch: The batch.
        prompt: What stands in the place of the attached one; None for none.

    Returns:
        (R, D).
    """
    attached, device = backbone.attachment, batch.pixel_values.device
    backbone.attachment = replace(attached, pixel_prompt=prompt)
    try:
        pixels = batch.pixel_values.detach().requires_grad_()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return backbone.connected_rows(pixels, batch.picture_sizes).rows.detach()
    finally:
        backbone.attachment = attached
