"""Stage 3: vision tower and projector learn to say in the language model's own words what stands in each cell.

The dense loss draws each patch's projected row to the sum of the word embeddings that describe the patch's cell, which
is supervision with region words. The word embeddings are the language stage's and stay as they are.
"""

from collections.abc import Mapping

import numpy
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from experiments.backbone_recipe.architecture import (
    EMBEDDING_NAME,
    build_vision_tower,
    normalise_pixels,
    unused_parameter_names,
    visual_features,
)
from experiments.backbone_recipe.settings import RecipeSettings
from experiments.backbone_recipe.slots import slot_ids, slot_rows
from experiments.backbone_recipe.training_loop import load_part
from experiments.testbed.language_text import raster_slots
from experiments.testbed.pretraining_images import pretraining_pictures


def dense_loss(rows: Tensor, target: Tensor) -> Tensor:
    """Returns the squared distance of rows (B, N, D) to their targets, in units of the targets' variance."""
    return ((rows - target) ** 2).sum(dim=-1).mean() / target.var(dim=(0, 1)).sum()


@torch.no_grad()
def solve_projector(projector: nn.Linear, features: Tensor, target: Tensor) -> None:
    """Sets the projector to the least-squares solution from features (N, W) to targets (N, D)."""
    # Normal equations in float64: lstsq's last bits change with where in memory its work space lies.
    with_one = functional.pad(features, (0, 1), value=1.0).double()
    solution = torch.linalg.solve(with_one.T @ with_one, with_one.T @ target.double())
    projector.weight.copy_(solution[:-1].T)
    projector.bias.copy_(solution[-1])


class DenseStage:
    """The dense loss alone; the projector begins with its least-squares solution."""

    name = "dense"

    def __init__(
        self, settings: RecipeSettings, tokenizer: PreTrainedTokenizerFast, earlier: Mapping[str, Tensor]
    ) -> None:
        self.settings = settings.dense
        self.architecture = settings.architecture
        self.seed = settings.seed
        self.steps = settings.dense.steps
        self.optimizer_settings = settings.dense.optimizer
        self.own_rates: Mapping[str, float] = {"projector.": settings.dense.projector_rate}
        pictures = pretraining_pictures(settings.seed, settings.dense.pictures)
        self.images = pictures.images
        side = settings.architecture.patches_per_cell_side
        ids = slot_ids([raster_slots(scene, side) for scene in pictures.scenes], tokenizer)
        embedding = nn.Embedding.from_pretrained(earlier[EMBEDDING_NAME])
        self.target = slot_rows(embedding, ids, tokenizer.pad_token_id)
        self.tower: VisionTransformer = build_vision_tower(settings.architecture)
        load_part(self.tower, earlier, "vision")
        self.projector = nn.Linear(settings.architecture.vision_width, settings.architecture.language_width)
        self._begin_with_least_squares()

    def _begin_with_least_squares(self) -> None:
        count = self.settings.least_squares_pictures
        with torch.no_grad():
            features = visual_features(self.tower, normalise_pixels(self.images[:count], self.architecture))
        solve_projector(self.projector, features.flatten(0, 1), self.target[:count].flatten(0, 1))

    def modules(self) -> dict[str, nn.Module]:
        """Returns the tower and the projector."""
        return {"vision": self.tower, "projector": self.projector}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the projector and the tower without what lies behind the features."""
        unused = tuple(f"vision.{prefix}" for prefix in unused_parameter_names(self.tower))
        return {
            f"{part}.{name}": parameter
            for part, module in self.modules().items()
            for name, parameter in module.named_parameters()
            if not f"{part}.{name}".startswith(unused)
        }

    def gradients(self, step: int) -> dict[str, float]:
        """Computes one step's gradients."""
        chosen = numpy.random.default_rng((self.seed, step)).integers(len(self.images), size=self.settings.batch)
        rows = self.projector(visual_features(self.tower, normalise_pixels(self.images[chosen], self.architecture)))
        loss = dense_loss(rows, self.target[torch.from_numpy(chosen)])
        loss.backward()
        return {"dense": loss.item()}
