"""The deletion check of an attribution: taking away what it names first must hurt the answer sooner than chance.

Petsiuk et al., "RISE" (BMVC 2018), section 4.2, call the area under this curve the deletion metric.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Probability = Callable[[Tensor], Tensor]
"""Returns (n,) probabilities of the answer for (n, 3, H, W) pictures."""
PICTURES_AT_ONCE = 64


@dataclass(frozen=True)
class DeletionCheck:
    """Probabilities of an answer while patches disappear.

    Attributes:
        attributed: (N + 1,) with the most attributed patch first; entry k is after k deletions.
        random: (R, N + 1), the same for R random orders.
    """

    attributed: Tensor
    random: Tensor

    @property
    def area(self) -> float:
        """Mean of ``attributed`` over all numbers of deletions: the lower, the better the attribution."""
        return float(self.attributed.mean())

    @property
    def random_areas(self) -> Tensor:
        """(R,) the same for the random orders."""
        return self.random.mean(dim=1)

    @property
    def orders_beaten(self) -> float:
        """Share of the random orders whose area is larger."""
        return float((self.random_areas > self.area).double().mean())


@torch.no_grad()
def deletion_curve(probability: Probability, pixels: Tensor, order: Sequence[int], edge: int) -> Tensor:
    """Deletes patches one after the other and returns (N + 1,) probabilities, the first of the whole picture.

    Args:
        probability: The model.
        pixels: (3, H, W), normalised; a deleted patch becomes 0, the mean colour of the tower's training pictures.
        order: Numbers of all N patches, row by row from the top left, in the order of deletion.
        edge: Patches along one side; N = edge * edge.
    """
    pictures, current = [pixels], pixels
    for patch in order:
        current = current.clone()
        blank(current, patch, edge)
        pictures.append(current)
    stacked = torch.stack(pictures)
    return torch.cat([probability(some) for some in stacked.split(PICTURES_AT_ONCE)]).cpu()


def blank(pixels: Tensor, patch: int, edge: int) -> None:
    """Sets one patch of (..., H, W) pixels to 0."""
    height, width = pixels.shape[-2] // edge, pixels.shape[-1] // edge
    row, column = divmod(patch, edge)
    pixels[..., row * height : (row + 1) * height, column * width : (column + 1) * width] = 0.0


def deletion_check(
    probability: Probability, pixels: Tensor, attribution: Tensor, random_orders: int, seed: int = 0
) -> DeletionCheck:
    """Compares the attribution's order with random ones.

    Args:
        probability: The model.
        pixels: (3, H, W), normalised.
        attribution: (edge, edge), higher where a patch speaks more for the answer.
        random_orders: How many, R.
        seed: Of a generator of their own.
    """
    edge, generator = attribution.shape[-1], torch.Generator().manual_seed(seed)
    order = attribution.flatten().argsort(descending=True).tolist()
    orders = [torch.randperm(edge * edge, generator=generator).tolist() for _ in range(random_orders)]
    return DeletionCheck(
        attributed=deletion_curve(probability, pixels, order, edge),
        random=torch.stack([deletion_curve(probability, pixels, one, edge) for one in orders]),
    )
