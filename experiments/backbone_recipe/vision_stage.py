"""Stage 1: the vision tower learns what stands in each cell, from labels."""

from collections.abc import Mapping

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.backbone_recipe.architecture import (
    build_vision_tower,
    normalise_pixels,
    unused_parameter_names,
    visual_features,
)
from experiments.backbone_recipe.settings import RecipeSettings
from experiments.testbed.pretraining_images import pretraining_pictures
from experiments.testbed.scenes import Scene
from experiments.testbed.vocabulary import CELLS, COLOURS, NAMES, ROWS, SIZES

NO_LABEL = -100
NOTHING_LABEL = len(NAMES)


def cell_labels(scene: Scene) -> list[list[int]]:
    """Returns for each of the nine cells the indices of name (``NOTHING_LABEL`` where empty), colour and size."""
    labels = [[NOTHING_LABEL, NO_LABEL, NO_LABEL] for _ in CELLS]
    for thing in scene.objects:
        labels[thing.cell] = [NAMES.index(thing.name), COLOURS.index(thing.colour), SIZES.index(thing.size)]
    return labels


def cell_features(features: Tensor, patches_per_cell_side: int) -> Tensor:
    """Averages the patches (B, N, W) of each cell to (B, 9, W)."""
    side, part, width = len(ROWS), patches_per_cell_side, features.shape[-1]
    return features.view(-1, side, part, side, part, width).mean(dim=(2, 4)).flatten(1, 2)


class VisionStage:
    """Supervised training of the blocks that the features come from; the classifier is thrown away afterwards."""

    name = "vision"

    def __init__(self, settings: RecipeSettings) -> None:
        self.settings = settings.vision
        self.architecture = settings.architecture
        self.seed = settings.seed
        self.steps = settings.vision.steps
        self.optimizer_settings = settings.vision.optimizer
        self.own_rates: Mapping[str, float] = {"classifier.": settings.vision.optimizer.adamw_rate}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.tower = build_vision_tower(settings.architecture)
            outputs = len(NAMES) + 1 + len(COLOURS) + len(SIZES)
            self.classifier = nn.Linear(settings.architecture.vision_width, outputs)
        pictures = pretraining_pictures(settings.seed, settings.vision.pictures)
        self.images = pictures.images
        self.labels = torch.tensor([cell_labels(scene) for scene in pictures.scenes])

    def modules(self) -> dict[str, nn.Module]:
        """Returns the tower and the classifier."""
        return {"vision": self.tower, "classifier": self.classifier}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the classifier and the tower without what lies behind the features."""
        unused = unused_parameter_names(self.tower)
        tower = {
            f"vision.{name}": parameter
            for name, parameter in self.tower.named_parameters()
            if not name.startswith(unused)
        }
        return tower | {f"classifier.{name}": parameter for name, parameter in self.classifier.named_parameters()}

    def gradients(self, step: int) -> dict[str, float]:
        """Computes one step's gradients."""
        chosen = numpy.random.default_rng((self.seed, step)).integers(len(self.images), size=self.settings.batch)
        pixels = normalise_pixels(self.images[chosen], self.architecture)
        features = visual_features(self.tower, pixels)
        logits = self.classifier(cell_features(features, self.architecture.patches_per_cell_side))
        loss = self._loss(logits, self.labels[torch.from_numpy(chosen)])
        loss.backward()
        return {"cells": loss.item()}

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Adds up the losses of name, colour and size; logits (B, 9, C), labels (B, 9, 3)."""
        names, colours, sizes = logits.flatten(0, 1).split((len(NAMES) + 1, len(COLOURS), len(SIZES)), dim=-1)
        weights = torch.ones(len(NAMES) + 1)
        weights[NOTHING_LABEL] = self.settings.empty_cell_weight
        name_labels, colour_labels, size_labels = labels.flatten(0, 1).unbind(-1)
        return (
            functional.cross_entropy(names, name_labels, weight=weights)
            + functional.cross_entropy(colours, colour_labels, ignore_index=NO_LABEL)
            + self.settings.size_weight * functional.cross_entropy(sizes, size_labels, ignore_index=NO_LABEL)
        )
