"""Attention probabilities of every layer, computed once more, step by step, in a pass on the token path.

The fast kernels keep running and never hand out probabilities, so hooks read what enters each attention module and let
it compute that again in the open. On the token path prompt rows stand in the sequence, so that they have columns like
any other row. Whatever a method adds, the recomputed attention must give back the output of the very module it was
read from; where it does not, something else takes part in the attention, and nothing is shown.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inspection.named_maps import Pieces, SampleAttention, by_sample
from lightning_m2pt.inspection.recompute import Recompute, recompute_of, refuse_other_output
from lightning_m2pt.methods.lora import ModuleReference
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.tower_rows import attention_of

READ_FIELDS = frozenset(
    {
        "knocked_out",
        "visual_prompts",
        "textual_prompts",
        "visual_rows_to_text",
        "visual_position",
        "key_value_prefix",
        "query_rows",
        "decoder_dropout",
        "connector",
        "lm_head",
        "path",
        "pixel_prompt",
    }
)
"""What an attachment may hold so that every column can be named. A connector or a head takes no part in attention."""


@torch.no_grad()
def capture_attention(backbone: Backbone, batch: Batch, layers: Collection[int] | None = None) -> list[SampleAttention]:
    """Runs a batch once and returns the attention of every sample; afterwards the backbone is as it was.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        batch: B samples, padded on the right. Padding has neither rows nor columns in what is returned.
        layers: Numbers of the layers to keep, of the decoder and of the tower alike; None keeps all.

    Returns:
        B items. A layer below the first one with prompts has no prompt rows.

    Raises:
        BadInputError: If the backbone or what is attached to it cannot be read, or a layer exists in neither.
    """
    blocks, decoder_layers = backbone.attention_layers()
    refuse_unread(backbone.attachment)
    wanted = set(range(max(len(blocks), len(decoder_layers)))) if layers is None else set(layers)
    refuse_missing_layers(wanted, max(len(blocks), len(decoder_layers)))
    found: dict[tuple[str, int], Pieces] = {}

    def keep(part: str, layer: int, recompute: Recompute) -> Any:  # noqa: ANN401  (torch's type of hooks is a union)
        def hook(attention: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:  # noqa: ANN401
            recomputed = recompute(attention, given, named)
            returned = output[0] if isinstance(output, tuple) else output
            refuse_other_output(recomputed.output, returned, f"{part} layer {layer}")
            found[part, layer] = tuple(maps.cpu() for maps in recomputed.probabilities)

        return hook

    modules = [
        (part, layer, read_attention(each[layer]))
        for part, each in (("vision", blocks), ("language", decoder_layers))
        for layer in sorted(wanted & set(range(len(each))))
    ]
    hooks = [(attention, keep(part, layer, recompute_of(attention))) for part, layer, attention in modules]
    handles = [first_hook(attention, hook) for attention, hook in hooks]
    try:
        with token_path(backbone):
            spans = backbone(batch).spans.cpu()
    finally:
        for handle in handles:
            handle.remove()
    return by_sample(found, spans, batch, backbone)


def read_attention(block: nn.Module) -> nn.Module:
    """Returns the part of a layer that computes attention.

    Raises:
        BadInputError: If it has none under a name that the libraries use.
    """
    found: nn.Module | None = attention_of(block)
    if found is None:
        raise BadInputError(
            f"the attention of {type(block).__name__} cannot be read",
            where="model.backbone",
            expected="layers of transformers, open_clip or timm",
        )
    return found


def first_hook(module: nn.Module, hook: Any) -> RemovableHandle:  # noqa: ANN401
    """Hooks a module in front of all others: what an adapter makes of the output is no part of the attention."""
    return module.register_forward_hook(hook, with_kwargs=True, prepend=True)


def refuse_unread(attachment: Attachment) -> None:
    """Refuses an attachment that holds something this file has no name for.

    Raises:
        BadInputError: Naming it.
    """
    refuse_shrunk(attachment)
    empty = Attachment()
    for field in fields(attachment):
        if field.name not in READ_FIELDS and getattr(attachment, field.name) != getattr(empty, field.name, None):
            raise BadInputError(
                f"attention with {field.name} attached cannot be shown",
                where="model.method",
                expected="prompts that stand in the sequence, or a method that changes weights alone",
            )


def refuse_shrunk(attachment: Attachment) -> None:
    """Refuses a prompt around a picture: what is found at a place of what the tower reads is shown at another one's.

    Raises:
        BadInputError: If there is one.
    """
    if attachment.pixel_prompt is not None and attachment.pixel_prompt.compose == "shrink":
        raise BadInputError(
            "a pixel prompt shrinks the picture: maps of what the tower reads would not lie where its parts are",
            where="model.method.compose",
            expected="overlay, or another method",
            hint="the prompt itself is trained, evaluated and transferred as it is",
        )


def refuse_missing_layers(wanted: Collection[int], available: int) -> None:
    """Refuses layers that neither decoder nor tower has.

    Raises:
        BadInputError: Naming the first one, or that there is none.
    """
    outside = sorted(layer for layer in wanted if not 0 <= layer < available)
    if outside or not wanted:
        raise BadInputError(
            f"layer {outside[0]} does not exist" if outside else "no layer is named",
            where="layers",
            expected=f"numbers from 0 to {available - 1}",
        )


@contextmanager
def token_path(backbone: Backbone) -> Iterator[None]:
    """Puts prompt rows into the sequence, visual ones before CLS and without dropout, and gives everything back.

    Where visual prompts stand makes no difference to the other rows, so that all methods are shown in one order.

    What prompts had installed is released afterwards and comes back with the next forward pass, as after ``attach``.
    """
    attachment = backbone.attachment
    held = [getattr(attachment, field.name) for field in fields(attachment)]
    attached = [value for value in held if isinstance(value, nn.Module)]
    lent = [reference.module for reference in backbone.modules() if isinstance(reference, ModuleReference)]
    modes = [(module, module.training) for root in (backbone, *attached, *lent) for module in root.modules()]
    backbone.attachment = replace(attachment, path="token", visual_position="before_cls")
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        backbone.attachment = attachment
        if attachment.visual_prompts is not None or attachment.textual_prompts is not None:
            backbone.release_hooks()
