"""The libraries' own forward passes with prompt rows put in: what our own paths are compared with.

Nothing here is shared with the paths that train and answer: hooks of its own put rows in, transformers' whole model
with its head runs the sequence, open_clip's whole tower the picture.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.prompts.key_value_prefix import learned_prefix
from lightning_m2pt.prompts.past_rows import library_name

if TYPE_CHECKING:  # the backbones call this file
    from lightning_m2pt.backbones.causal_decoding import CausalDecoding
    from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
    from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
    from lightning_m2pt.prompts.attachment import Attachment


class RowsRead(Exception):
    """Carries the rows that a layer was given."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows


class PlacedRowsRead(RowsRead):
    """Carries the rows that a decoder was given, and their positions."""

    def __init__(self, rows: Tensor, positions: Tensor) -> None:
        super().__init__(rows)
        self.positions = positions


def library_decoder(
    backbone: "CausalDecoding",
    embeddings: Tensor,
    attention: Literal["eager"] | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Runs the language model over (B, S, D) rows behind the attached prompts.

    Args:
        backbone: With what is attached to it.
        embeddings: (B, S, D).
        attention: The library's attention function; None takes the one that our paths are built upon.
        positions: (3, B, S) of the rows, without what stands in front, where positions have three axes.

    Returns:
        Hidden states (B, S, D) after the final norm and logits (B, S, V), as the library's own model makes them.
    """
    attachment, model, decoder = backbone.attachment, backbone.language_model, backbone.decoder()
    prompts = attachment.textual_prompts
    rows = prompts.layer_rows() if prompts is not None else []
    length = prompts.length if prompts is not None else 0
    cache = cache_with(backbone, len(embeddings)) if attachment.key_value_prefix is not None else None
    learned = attachment.key_value_prefix.length if attachment.key_value_prefix is not None else 0
    room = embeddings.new_zeros(len(embeddings), length, embeddings.shape[-1])
    states: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(library_attention(decoder, attention))
        first = next((number for number, candidate in enumerate(rows) if candidate is not None), 0)
        for number, block in enumerate(decoder.layers):
            own = rows[number] if rows else None
            hidden = hiding_placeholders(length, learned, embeddings) if number < first else None
            hook = block.register_forward_pre_hook(replaced_rows_hook(own, hidden), with_kwargs=True)
            stack.callback(hook.remove)
            queries = attachment.query_rows[number] if attachment.query_rows else None
            if queries is not None:
                projections = dict(block.self_attn.named_children())
                asking = projections.get("q_proj") or projections["qkv_proj"]
                stack.callback(asking.register_forward_hook(replaced_queries_hook(queries)).remove)
        if attachment.lm_head is not None:
            stack.callback(
                backbone.pretrained_lm_head().register_forward_hook(replaced_head_hook(attachment.lm_head)).remove
            )
        keep = decoder.register_forward_hook(lambda _, __, output: states.append(output.last_hidden_state))
        stack.callback(keep.remove)
        placed = {} if positions is None else {"position_ids": behind_prompts(positions, length) + learned}
        output = model(
            inputs_embeds=torch.cat([room, embeddings], dim=1),
            past_key_values=cache,
            use_cache=cache is not None,
            **placed,
        )
    return states[0][:, length:], output.logits[:, length:]


def behind_prompts(positions: Tensor, prompts: int) -> Tensor:
    """Returns the positions (3, B, P + S) of P prompt rows and of the rows behind them (3, B, S)."""
    front = torch.arange(prompts, device=positions.device).expand(*positions.shape[:2], -1)
    return torch.cat([front, positions + prompts], dim=2)


def library_assembled(backbone: "VisionLanguageModel", batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Runs the library's whole model with pictures up to its decoder.

    Returns:
        What the decoder is given: rows (B, S, D) and positions (3, B, S). None: the family says of no model how.
    """
    decoder, picture = backbone.decoder(), backbone.never_answered[0]
    counts = iter(backbone.rows_of_runs(batch.pixel_values, batch.picture_sizes))
    texts = []
    for ids, spans in zip(batch.input_ids, batch.spans, strict=True):
        real = ids[spans != Span.PADDING]
        is_run = real == IMAGE_TOKEN_ID
        repeats = [next(counts) if run else 1 for run in is_run.tolist()]
        texts.append(real.masked_fill(is_run, picture).repeat_interleave(torch.tensor(repeats, device=ids.device)))
    ids = pad_sequence(texts, batch_first=True)
    mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    given = backbone.family.whole_model_inputs(backbone.language_model, ids, mask, batch)
    if given is None:
        return None
    with ExitStack() as stack:
        if backbone.attachment.connector is not None:
            hook = replaced_connector_hook(backbone.attachment.connector, backbone.token_embedding().weight.dtype)
            stack.callback(backbone.projector.register_forward_hook(hook).remove)
        stack.callback(decoder.register_forward_pre_hook(read_rows_and_positions, with_kwargs=True).remove)
        try:
            backbone.language_model(**given, use_cache=False)
        except PlacedRowsRead as read:
            return read.rows, read.positions
    raise RuntimeError("the decoder was not called")


def library_logits(backbone: "CausalDecoding", hidden_states: Tensor) -> Tensor:
    """Returns (..., V): what the library's model makes of (..., D) states behind its decoder, caps and scales included.

    As long as it lasts the decoder hands out these states and computes nothing.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPast

    flat, decoder, head = hidden_states.flatten(0, -2)[None], backbone.decoder(), backbone.attachment.lm_head
    with ExitStack() as stack:
        if head is not None:
            stack.callback(backbone.pretrained_lm_head().register_forward_hook(replaced_head_hook(head)).remove)
        decoder.forward = lambda **_: BaseModelOutputWithPast(last_hidden_state=flat)
        stack.callback(delattr, decoder, "forward")
        logits: Tensor = backbone.language_model(inputs_embeds=flat, use_cache=False).logits
    return logits.reshape(*hidden_states.shape[:-1], -1)


def library_logits_of_tokens(backbone: "CausalDecoding", tokens: Tensor) -> Tensor:
    """Returns (B, S, V) of tokens (B, S), their embeddings looked up by the library's model."""
    with ExitStack() as stack:
        stack.enter_context(library_attention(backbone.decoder(), None))
        head = backbone.attachment.lm_head
        if head is not None:
            stack.callback(backbone.pretrained_lm_head().register_forward_hook(replaced_head_hook(head)).remove)
        logits: Tensor = backbone.language_model(input_ids=tokens, use_cache=False).logits
    return logits


def library_rows(backbone: "OpenClipLlama", pixel_values: Tensor) -> Tensor:
    """Returns (B, N, D): the rows for the connector, of open_clip's own tower, raw prompt rows in front."""
    return with_raw_rows(backbone.attachment, library_tower(backbone, pixel_values))


def with_raw_rows(attachment: "Attachment", states: Tensor, has_cls: bool = True) -> Tensor:
    """Returns the rows for the connector: raw prompt rows and CLS as the attachment says, then patches.

    Args:
        attachment: What is attached.
        states: (B, 1 + N, D), or (B, N, D) of a tower without CLS.
        has_cls: Whether the tower has one.
    """
    prompts = attachment.visual_prompts
    raw = attachment.raw_prompt_rows()
    rows = [states[:, has_cls * (1 - (attachment.rows_beside_patches() > raw)) :]]
    if prompts is not None and raw:
        last = prompts.layer_rows()[-1]
        assert last is not None
        rows.insert(0, last[:, -raw:].to(states.dtype).expand(len(states), -1, -1))
    return torch.cat(rows, dim=1)


def library_tower(backbone: "OpenClipLlama", pixel_values: Tensor) -> Tensor:
    """Returns (B, 1 + N, D): CLS and patches as open_clip's own tower hands them to its last block."""
    tower, prompts = backbone.vision_tower, backbone.attachment.visual_prompts
    *blocks, last = tower.transformer.resblocks
    in_front = 0
    with ExitStack() as stack:
        for block, rows in zip(blocks, prompts.layer_rows() if prompts is not None else [], strict=False):
            if rows is not None:
                stack.callback(block.register_forward_pre_hook(put_before(rows, in_front)).remove)
                in_front = rows.shape[1]
        stack.callback(last.register_forward_pre_hook(stop_here).remove)
        try:
            tower(pixel_values.to(tower.conv1.weight.dtype))
        except RowsRead as read:
            return read.rows[:, in_front:]
    raise RuntimeError("the tower's last block was not called")


def library_states(backbone: "VisionLanguageModel", pixel_values: Tensor) -> Tensor:
    """Returns (tiles, N, D): what the library's own whole model hands from its tower on, CLS in front if there is one.

    Prompt rows stand in the sequence through all blocks that are used, and are taken out of what comes behind.
    """
    prompts, in_front = backbone.attachment.visual_prompts, 0
    rows_of_blocks = prompts.layer_rows()[:-1] if prompts is not None else []
    with ExitStack() as stack:
        for block, rows in zip(backbone.tower_blocks(), rows_of_blocks, strict=bool(rows_of_blocks)):
            if rows is not None:
                stack.callback(block.register_forward_pre_hook(put_before(rows, in_front)).remove)
                in_front = rows.shape[1]
        return backbone.tiled_family().tower_states(backbone.language_model, pixel_values)[:, in_front:]


def cache_with(backbone: "CausalDecoding", samples: int) -> Any:  # noqa: ANN401  (the library's cache)
    """Returns the library's cache with the learned keys and values in front."""
    from transformers import DynamicCache

    prefix, decoder = backbone.attachment.key_value_prefix, backbone.decoder()
    cache = DynamicCache(config=decoder.config)
    for layer, pair in enumerate(learned_prefix(decoder, prefix).layers if prefix is not None else []):
        keys, values = (each.expand(samples, -1, -1, -1) for each in pair)
        cache.update(keys, values, layer)
    return cache


@contextmanager
def library_attention(decoder: Any, wanted: str | None) -> Iterator[None]:  # noqa: ANN401  (any decoder)
    """Lets the decoder compute attention with the wanted function, or the library's own in the place of ours."""
    config = decoder.config
    chosen = config._attn_implementation
    try:
        config._attn_implementation = wanted or library_name(chosen)
        yield
    finally:
        config._attn_implementation = chosen


def hiding_placeholders(length: int, learned: int, embeddings: Tensor) -> Callable[[Tensor | None], Tensor]:
    """Returns what makes a mask, of the library's own or of none: no real row sees the rows that are not there yet."""
    queries = length + embeddings.shape[1]

    def hide(own: Tensor | None) -> Tensor:
        seen = torch.ones(queries, learned + queries, dtype=torch.bool, device=embeddings.device).tril(learned)
        if own is not None:
            seen = (own if own.dtype == torch.bool else own == 0).clone()
        seen[..., length:, learned : learned + length] = False
        mask = torch.zeros(seen.shape, dtype=embeddings.dtype, device=embeddings.device)
        mask = mask.masked_fill(~seen, torch.finfo(embeddings.dtype).min)
        return mask if mask.dim() == 4 else mask[None, None]

    return hide


def replaced_rows_hook(rows: Tensor | None, hide: Callable[[Tensor | None], Tensor] | None) -> Callable[..., Any]:
    """Returns a decoder layer's pre-hook: rows in the place of the first ones, a mask made of its own."""

    def hook(_block: nn.Module, given: tuple[Tensor, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        states = given[0]
        if rows is not None:
            states = over_first(states, rows)
        return (states, *given[1:]), named if hide is None else {
            **named,
            "attention_mask": hide(named["attention_mask"]),
        }

    return hook


def replaced_queries_hook(rows: Tensor) -> Callable[..., Tensor]:
    """Returns a hook: the first numbers, as many as queries are, of what a projection makes of the first rows."""
    return lambda _projection, _given, output: over_first(output, rows)


def put_before(rows: Tensor, replaced: int) -> Callable[..., tuple[Tensor, ...]]:
    """Returns a tower block's pre-hook: rows in front of all others, in the place of the first ``replaced``."""

    def hook(_block: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = given[0]
        first = rows.to(states.dtype).expand(len(states), -1, -1)
        return torch.cat([first, states[:, replaced:]], dim=1), *given[1:]

    return hook


def over_first(states: Tensor, rows: Tensor) -> Tensor:
    """Returns (B, S, D) states with (1, P, W) rows written over the first W numbers of the first P."""
    changed = states.clone()
    changed[:, : rows.shape[1], : rows.shape[2]] = rows.to(states.dtype)
    return changed


def replaced_head_hook(head: nn.Module) -> Callable[..., Tensor]:
    """Returns a hook: the head's output is that of another head."""
    weight: Tensor = next(head.parameters())
    return lambda _head, given, _output: head(given[0].to(weight.dtype))


def stop_here(_block: nn.Module, given: Sequence[Tensor]) -> None:
    """Ends the pass with the rows that this block is given."""
    raise RowsRead(given[0])


def read_rows_and_positions(_decoder: nn.Module, _given: object, named: dict[str, Any]) -> None:
    """Ends the pass with what the decoder is given."""
    raise PlacedRowsRead(named["inputs_embeds"], named["position_ids"])


def replaced_connector_hook(connector: nn.Module, dtype: torch.dtype) -> Callable[..., Tensor]:
    """Returns a hook: the connector's output is that of another one, which computes in its own type."""
    weight: Tensor = next(connector.parameters())
    return lambda _connector, given, _output: connector(given[0].to(weight.dtype)).to(dtype)
