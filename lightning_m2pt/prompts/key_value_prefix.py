"""Learned keys and values in front of every decoder layer's own: prefix tuning.

Unlike a deep prompt, whose keys and values the frozen layer computes from a row, the numbers here are keys and values
themselves. They are stored after the rotation, as prefix tuning everywhere does: they have no position, and the first
real row has position P.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.prompts.past_rows import PastRows
from lightning_m2pt.prompts.row_hooks import RowHooks


class KeyValuePrefix(nn.Module, ABC):
    """P learned keys and values for each decoder layer.

    Attributes:
        length: P.
    """

    length: int

    @abstractmethod
    def keys_and_values(self) -> Tensor:
        """Returns (L, 2, P, H_kv * D_head): for every layer keys, then values."""


class KeyValueTable(KeyValuePrefix):
    """One trained tensor for the keys and one for the values of each layer.

    Args:
        layers: L.
        length: P.
        width: H_kv * D_head.
    """

    def __init__(self, layers: int, length: int, width: int) -> None:
        super().__init__()
        self.length = length
        self.keys = nn.ParameterList([nn.Parameter(torch.empty(1, length, width)) for _ in range(layers)])
        self.values = nn.ParameterList([nn.Parameter(torch.empty(1, length, width)) for _ in range(layers)])

    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draws every tensor from a normal, the keys of all layers first."""
        with torch.no_grad():
            for tensor in [*self.keys, *self.values]:
                tensor.normal_(0.0, std, generator=generator)

    def keys_and_values(self) -> Tensor:
        """Returns (L, 2, P, H_kv * D_head)."""
        pairs = [torch.cat([keys, values]) for keys, values in zip(self.keys, self.values, strict=True)]
        return torch.stack(pairs)


class PrefixEmbedding(KeyValuePrefix):
    """PTUM's form: an embedding for each of P positions holds the keys and values of all layers (OFA's code).

    Args:
        layers: L.
        length: P.
        width: H_kv * D_head.
        bottleneck: None: the embedding holds 2 L H_kv D_head numbers a row. A number: it holds that many, and
            Linear, ReLU, Linear make the keys and values of it (the reparameterisation).
        dropout: Dropout on learned keys and values in training (0.2 in the published code).
        frozen: How many of the first positions are not learned: their keys and values are what ``start_from`` says.
    """

    frozen_rows: Tensor | None

    def __init__(
        self, layers: int, length: int, width: int, bottleneck: int | None, dropout: float, frozen: int = 0
    ) -> None:
        super().__init__()
        self.length, self._layers = length, layers
        total = 2 * layers * width
        self.embedding = nn.Parameter(torch.empty(length - frozen, bottleneck or total))
        self.register_buffer("frozen_rows", torch.empty(frozen, total) if frozen else None, persistent=False)
        self.projection = None
        if bottleneck:
            self.projection = nn.Sequential(nn.Linear(bottleneck, bottleneck), nn.ReLU(), nn.Linear(bottleneck, total))
        self.dropout = nn.Dropout(dropout)

    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draws the embedding from a normal, the layers behind it as torch's linear layers start (biases zero)."""
        with torch.no_grad():
            self.embedding.normal_(0.0, std, generator=generator)
            for linear in self.modules():
                if isinstance(linear, nn.Linear):
                    bound = linear.in_features**-0.5
                    linear.weight.uniform_(-bound, bound, generator=generator)
                    linear.bias.zero_()

    def start_from(self, pairs: Tensor) -> None:
        """Fills embedding and frozen rows with given keys and values.

        Args:
            pairs: (L, 2, P, H_kv * D_head), as ``keys_and_values`` returns them.

        Raises:
            ValueError: If the embedding holds something else than keys and values.
        """
        if self.projection is not None:
            raise ValueError("keys and values are made of this embedding, and cannot be put into it")
        rows, frozen = pairs.permute(2, 0, 1, 3).flatten(1), self.frozen_rows
        with torch.no_grad():
            if frozen is not None:
                frozen.copy_(rows[: len(frozen)])
            self.embedding.copy_(rows[self.length - len(self.embedding) :])

    def keys_and_values(self) -> Tensor:
        """Returns (L, 2, P, H_kv * D_head)."""
        rows: Tensor = self.embedding if self.projection is None else self.projection(self.embedding)
        dropped: Tensor = self.dropout(rows)
        if self.frozen_rows is not None:
            dropped = torch.cat([self.frozen_rows.to(dropped), dropped])
        return dropped.view(self.length, self._layers, 2, -1).permute(1, 2, 0, 3)


def learned_prefix(decoder: Any, prefix: KeyValuePrefix) -> PastRows:  # noqa: ANN401
    """Returns the learned keys and values of every layer, (1, H_kv, P, D_head) each.

    Args:
        decoder: A decoder of transformers (grouped heads are fine).
        prefix: The learned keys and values.
    """
    weight, layers = decoder.embed_tokens.weight, []
    for block, pair in zip(decoder.layers, prefix.keys_and_values(), strict=True):
        heads = pair.to(weight.dtype).view(2, 1, prefix.length, -1, block.self_attn.head_dim).transpose(2, 3)
        layers.append((heads[0], heads[1]))
    return PastRows(layers, torch.arange(prefix.length, device=weight.device)[None])


def query_projection(attention: Any) -> tuple[nn.Module, int]:  # noqa: ANN401
    """Returns the projection of a layer's attention that makes queries, and how many of its first numbers they are."""
    width = attention.config.num_attention_heads * attention.head_dim
    return getattr(attention, "q_proj", None) or attention.qkv_proj, width


def over_first_queries(projected: Tensor, rows: Tensor, width: int) -> Tensor:
    """Returns (B, S, W) with (1, P, ``width``) queries in the place of those of the first P rows."""
    count = rows.shape[1]
    queries = torch.cat([rows.to(projected.dtype).expand(len(projected), -1, -1), projected[:, count:, :width]], dim=1)
    return torch.cat([queries, projected[..., width:]], dim=-1)


class QueryRows(RowHooks):
    """Learned queries in the place of the first rows' own: hooks on the query projections of a decoder.

    Rows keep their keys, values and residual stream; only what they ask is learned. Active while whole sequences are
    run, not while single tokens are decoded from the cache.
    """

    def install(self, layers: Sequence[nn.Module]) -> None:
        """Hooks every layer's query projection."""
        for number, layer in enumerate(layers):
            projection, width = query_projection(layer.self_attn)
            self._handles.append(projection.register_forward_hook(self._hook(number, width)))

    def _hook(self, number: int, width: int) -> Any:  # noqa: ANN401
        def replace(_projection: nn.Module, _arguments: tuple[Tensor, ...], projected: Tensor) -> Tensor | None:
            rows = self.rows[number] if self.rows else None
            return None if rows is None else over_first_queries(projected, rows, width)

        return replace
