"""What prompt rows are near to: words of the vocabulary, and the rows of other layers."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_m2pt.prompts.deep import DeepPrompts

RANDOM_ROWS = 1_000
QUANTILE = 0.95


@dataclass(frozen=True)
class NearestWords:
    """The nearest words of every row of one layer.

    Attributes:
        token_ids: (P, K) int64, the nearest first.
        cosines: (P, K).
    """

    token_ids: Tensor
    cosines: Tensor


@torch.no_grad()
def nearest_words(rows: Tensor, vocabulary: Tensor, count: int) -> NearestWords:
    """Compares prompt rows with the word embeddings by the cosine: the layers' first norm takes lengths away.

    Only layer 0's rows stand where word embeddings stand. Rows of deeper layers meet states that have been through
    layers, so that a near word says little there.

    Args:
        rows: (P, D).
        vocabulary: (V, D) token embedding.
        count: Words a row, at most V.
    """
    cosines = normalize(rows.double(), dim=-1) @ normalize(vocabulary.to(rows.device).double(), dim=-1).T
    nearest = cosines.topk(min(count, len(vocabulary)), dim=-1)
    return NearestWords(nearest.indices, nearest.values)


@torch.no_grad()
def chance_of_nearest(vocabulary: Tensor) -> float:
    """Returns the cosine with its nearest word that 95% of random rows stay below: what is no higher means nothing."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(RANDOM_ROWS, vocabulary.shape[1], generator=generator, dtype=torch.float64)
    highest = nearest_words(rows.to(vocabulary.device), vocabulary, 1).cosines[:, 0]
    return float(highest.quantile(QUANTILE))


@torch.no_grad()
def layer_similarity(prompts: DeepPrompts) -> Tensor:
    """Returns (L, L): how alike the rows of two layers are, in the order of ``prompts.layers``.

    Rows have no order, so each is compared with the row of the other layer that has the highest cosine with it; the
    mean is taken over the rows of both layers. The diagonal is 1.
    """
    rows = [normalize(prompts.rows[str(layer)][0].double(), dim=-1) for layer in prompts.layers]
    table = torch.empty(len(rows), len(rows), dtype=torch.float64)
    for number, one in enumerate(rows):
        for place, other in enumerate(rows):
            cosines = one @ other.T
            table[number, place] = (cosines.amax(dim=1).mean() + cosines.amax(dim=0).mean()) / 2
    return table


@torch.no_grad()
def chance_of_similarity(length: int, width: int) -> float:
    """Returns what ``layer_similarity`` gives on average for two layers of random rows.

    Args:
        length: Rows a layer.
        width: Numbers a row.
    """
    generator = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(2, 100, length, width, generator=generator, dtype=torch.float64), dim=-1)
    return float((rows[0] @ rows[1].transpose(1, 2)).amax(dim=2).mean())


@torch.no_grad()
def row_norms(prompts: DeepPrompts) -> dict[int, list[float]]:
    """Returns the Euclidean length of every row by layer."""
    return {layer: prompts.rows[str(layer)][0].norm(dim=-1).tolist() for layer in prompts.layers}
