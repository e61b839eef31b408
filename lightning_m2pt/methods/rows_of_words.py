"""What a frozen decoder makes of a text alone: where learned rows, keys and values can start from.

The text stands at the first positions, as learned rows do, and nothing stands in front of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.prompts.decoder_pass import append_rows
from lightning_m2pt.prompts.past_rows import no_rows

RowsOfLayers: TypeAlias = Literal["hidden", "embeddings"]


@torch.no_grad()
def rows_of_words(backbone: Backbone, tokens: Sequence[int], of_layers: RowsOfLayers) -> list[Tensor]:
    """Runs a text through the decoder once and returns what stands at each layer's input.

    Args:
        backbone: Loaded, with nothing attached. Where its weights are shared out, every process calls this.
        tokens: The text, P tokens.
        of_layers: ``hidden``: each layer's own input. ``embeddings``: the first layer's, for all of them.

    Returns:
        For every layer (1, P, D) in the weights' type.
    """
    inputs: list[Tensor] = []

    def keep(_block: nn.Module, arguments: tuple[Tensor, ...], _keywords: dict[str, Any]) -> None:
        inputs.append(arguments[0].detach().clone())

    layers = backbone.decoder().layers
    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    try:
        with uncompiled(layers):
            backbone.decode_rows(embedded(backbone, tokens))
    finally:
        for hook in hooks:
            hook.remove()
    return inputs if of_layers == "hidden" else inputs[:1] * len(inputs)


@torch.no_grad()
def keys_and_values_of_words(backbone: Backbone, tokens: Sequence[int]) -> Tensor:
    """Runs a text through the decoder once and returns the keys and values that rows behind it would read.

    Args:
        backbone: As for ``rows_of_words``; its decoder takes past rows.
        tokens: The text, P tokens.

    Returns:
        (L, 2, P, H_kv * D_head) in the weights' type: for every layer keys, after the rotation, then values.
    """
    decoder, rows = backbone.decoder(), embedded(backbone, tokens)
    positions = torch.arange(len(tokens), device=rows.device)[None]
    with uncompiled(decoder.layers):
        _, past = append_rows(decoder, no_rows(rows.device), rows, positions)
    pairs = [torch.cat([keys, values]) for keys, values in past.layers]
    return torch.stack([pair.transpose(1, 2).flatten(2) for pair in pairs])


def embedded(backbone: Backbone, tokens: Sequence[int]) -> Tensor:
    """Returns the words' rows (1, P, D) as a sequence has them; begins the pass where weights are shared out."""
    backbone.before_passes()
    embedding = backbone.token_embedding()
    ids = torch.tensor([list(tokens)], device=embedding.weight.device)
    return embedding(ids)  # type: ignore[no-any-return]


@contextmanager
def uncompiled(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Takes compiled forwards away as long as it lasts: for one pass of one length nothing is worth compiling."""
    compiled = [vars(layer).pop("forward", None) for layer in layers]
    try:
        yield
    finally:
        for layer, forward in zip(layers, compiled, strict=True):
            if forward is not None:
                layer.forward = forward
