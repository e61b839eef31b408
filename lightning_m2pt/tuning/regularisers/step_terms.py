"""The terms of one optimizer step: computed by micro-batch, added up, and logged in proportion to the cross-entropy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.tuning.losses import SupervisedRows, supervised_rows
from lightning_m2pt.tuning.regularisers.base import Regulariser
from lightning_m2pt.tuning.regularisers.seen_pictures import SeenPictures, rows_of_pictures


@dataclass(frozen=True)
class Measured:
    """A micro-batch's forward pass.

    Attributes:
        rows: Its supervised rows.
        sums: Of each regulariser the sum over the micro-batch's pictures, with a gradient; none without a picture.
    """

    rows: SupervisedRows
    sums: tuple[Tensor, ...] = ()


def measured(backbone: Backbone, batch: Batch, shortcuts: Shortcuts, regularisers: Sequence[Regulariser]) -> Measured:
    """Computes the loss's rows, and what the regularisers say of the same pass.

    Args:
        backbone: Loaded, with the method attached.
        batch: B samples with answers.
        shortcuts: What the forward pass may leave out.
        regularisers: The terms beside the cross-entropy.
    """
    if not regularisers or not len(batch.pixel_values):
        return Measured(supervised_rows(backbone, batch, shortcuts))
    before = [each.before(backbone, batch) for each in regularisers]
    with rows_of_pictures(backbone) as noted:
        rows = supervised_rows(backbone, batch, shortcuts)
    seen = SeenPictures(backbone, batch, noted[-1])
    pairs = zip(regularisers, before, strict=True)
    return Measured(rows, tuple(each.summed(seen, of_each) for each, of_each in pairs))


class StepTerms:
    """What the micro-batches of an optimizer step add up to on this process.

    Args:
        regularisers: The terms, in order.
    """

    def __init__(self, regularisers: Sequence[Regulariser]) -> None:
        self.regularisers = regularisers
        self.cross_entropy = 0.0
        self.values = [0.0] * len(regularisers)

    def restart(self) -> None:
        """Forgets what was added."""
        self.cross_entropy, self.values = 0.0, [0.0] * len(self.regularisers)

    def add(self, cross_entropy: Tensor, sums: Sequence[Tensor], pictures: int) -> Tensor | None:
        """Adds a micro-batch's share of the step.

        Args:
            cross_entropy: Its share of the cross-entropy.
            sums: What ``Measured`` has.
            pictures: What the sums are divided by: pictures of the whole step.

        Returns:
            Its share of all terms together, signed and weighted, with a gradient; None where it has none.
        """
        self.cross_entropy += float(cross_entropy.detach())
        share: Tensor | None = None
        for number, total in enumerate(sums):
            value, each = total / pictures, self.regularisers[number]
            self.values[number] += float(value.detach())
            weighted = each.sign * each.weight * value
            share = weighted if share is None else share + weighted
        return share

    def ended(self, strategy: Strategy, dtype: torch.dtype) -> dict[str, float]:
        """Returns what a step is logged with, and begins the next one; all processes call it together.

        Each term goes as it is, and as a share: weighted and signed, divided by the cross-entropy.

        Args:
            strategy: Adds up over all processes.
            dtype: What is added up in.
        """
        if not self.regularisers:
            return {}
        of_process = torch.tensor([self.cross_entropy, *self.values], dtype=dtype, device=strategy.root_device)
        totals = strategy.reduce(of_process, reduce_op="sum").tolist()
        self.restart()
        found = {}
        for each, value in zip(self.regularisers, totals[1:], strict=True):
            found[f"train/{each.name}"] = value
            found[f"train/{each.name}/share"] = each.sign * each.weight * value / totals[0] if totals[0] else 0.0
        return found
