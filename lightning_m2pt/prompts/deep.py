"""The table of prompts: one trainable tensor for every layer that gets its own (M2PT, Figure 2)."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_m2pt.errors import BadInputError

Depth: TypeAlias = Literal["deep", "shallow"]
LayerChoice: TypeAlias = Literal["all"] | list[int]
Initialisation: TypeAlias = Literal["xavier_uniform", "normal", "vocabulary", "vpt_uniform", "words"]


def choose_layers(layers: LayerChoice, depth: Depth, available: int, key: str) -> list[int]:
    """Returns the layers whose input gets prompt rows of its own.

    Args:
        layers: ``all``, or ascending layer numbers counted from 0.
        depth: ``deep`` gives every chosen layer its own rows; ``shallow`` only the first chosen one, whose rows then
            flow on through the layers above like any other row.
        available: How many layers can take rows.
        key: The argument's name, for the error.

    Raises:
        BadInputError: If a layer does not exist, is named twice, is out of order, or the list is empty.
    """
    chosen = list(range(available)) if layers == "all" else list(layers)
    expected = f"'all' or ascending layer numbers from 0 to {available - 1}"
    if not chosen or chosen != sorted(set(chosen)):
        raise BadInputError(f"{chosen} is not a list of ascending layers", where=key, expected=expected)
    outside = [layer for layer in chosen if not 0 <= layer < available]
    if outside:
        raise BadInputError(f"layer {outside[0]} of {available} does not exist", where=key, expected=expected)
    return chosen if depth == "deep" else chosen[:1]


class DeepPrompts(nn.Module):
    """Prompt rows per layer.

    The tensors have the published shape (1, P, D), so that Xavier's bound is the published sqrt(6 / (D (P + 1)))
    and released prompts can be compared number by number.

    Args:
        layers: The layers that get rows, ascending.
        total_layers: Length of the list that ``layer_rows`` returns.
        length: Rows per layer, P.
        width: Width of the model, D.
        dropout: Probability that a number of the table is dropped in training, once per forward pass for the whole
            batch (per-sample dropout would break the equality of the two paths).
    """

    def __init__(self, layers: Sequence[int], total_layers: int, length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.total_layers = total_layers
        self.length = length
        # Pairs, because ParameterDict sorts the keys of a dict as text: 0, 1, 10, ...
        self.rows = nn.ParameterDict([(str(layer), nn.Parameter(torch.empty(1, length, width))) for layer in layers])
        self.dropout = nn.Dropout(dropout)

    @property
    def layers(self) -> list[int]:
        """The layers that have rows of their own, ascending."""
        return [int(layer) for layer in self.rows]

    @property
    def is_complete(self) -> bool:
        """Tells whether every layer has rows of its own, so that no prompt row ever survives a layer."""
        return len(self.rows) == self.total_layers

    def initialise(
        self,
        init: Initialisation,
        std: float,
        generator: torch.Generator,
        vocabulary: Tensor | None = None,
        patch_size: int | None = None,
    ) -> None:
        """Fills the table, layer by layer, from one generator.

        Args:
            init: ``xavier_uniform`` on (1, P, D) as published; ``normal`` with ``std``; ``vocabulary`` copies rows
                of the embedding table drawn at random; ``vpt_uniform`` is VPT's bound for visual prompts; ``words``,
                which ``start_from`` puts in, starts as published.
            std: Standard deviation of ``normal``.
            generator: Source of randomness (CPU).
            vocabulary: (V, D) embedding table, needed by ``vocabulary`` only.
            patch_size: Side of a patch in pixels, needed by ``vpt_uniform`` only.

        Raises:
            ValueError: If what ``init`` needs is not given.
        """
        for parameter in self.rows.values():
            if parameter.is_meta:
                continue
            with torch.no_grad():
                if init == "normal":
                    values = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
                elif init == "vocabulary":
                    if vocabulary is None:
                        raise ValueError("rows of the vocabulary are asked for, and no vocabulary is given")
                    tokens = torch.randint(len(vocabulary), (self.length,), generator=generator)
                    values = vocabulary[tokens.to(vocabulary.device)].float()[None]
                elif init == "vpt_uniform":
                    if patch_size is None:
                        raise ValueError("VPT's bound is asked for, and no size of a patch is given")
                    bound = vpt_bound(patch_size, parameter.shape[-1])
                    values = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                else:
                    values = nn.init.xavier_uniform_(torch.empty(parameter.shape), generator=generator)
                parameter.copy_(values)

    def start_from(self, rows: Sequence[Tensor]) -> None:
        """Fills the table with given rows.

        Args:
            rows: (1, P, D) for each of all layers; those of layers without rows of their own are not used.
        """
        with torch.no_grad():
            for layer in self.layers:
                self.rows[str(layer)].copy_(rows[layer])

    def layer_rows(self) -> list[Tensor | None]:
        """Returns for every layer its rows (1, P, D) after dropout, or None where the layer has none of its own."""
        return [
            self.dropout(self.rows[str(layer)]) if str(layer) in self.rows else None
            for layer in range(self.total_layers)
        ]


def vpt_bound(patch_size: int, width: int) -> float:
    """Returns VPT's bound of the uniform start: sqrt(6 / (3 patch^2 + D)) (Jia et al., ECCV 2022, official code)."""
    return math.sqrt(6.0 / (3 * patch_size**2 + width))
