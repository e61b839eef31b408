"""The decoder side of a backbone whose language model is of Llama's form in transformers.

Every way to run it is here: whole sequences, supervised rows alone, questions and their answers token by token. A
backbone that pairs such a model with another vision tower inherits all of it.
"""

from abc import ABC
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone, DecodingState
from lightning_m2pt.backbones.library_forward import library_decoder
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.prompts.decoder_stages import additive_mask
from lightning_m2pt.prompts.key_value_prefix import QueryRows, learned_prefix
from lightning_m2pt.prompts.prefix_decoder import run_behind_prefix, shared_rows
from lightning_m2pt.prompts.prefix_path import prompt_prefix
from lightning_m2pt.prompts.shared_prefix import (
    KeysAndValues,
    cache_with_prefix,
    refuse_recomputing,
    takes_prefixes,
    use_prefix_attention,
)
from lightning_m2pt.prompts.token_path import LanguageTokenPath, prepend_placeholders


class LlamaDecoding(Backbone, ABC):
    """A backbone with a Llama-form language model.

    Attributes:
        language_model: The model with its head; subclasses set it.
    """

    language_model: Any

    def __init__(self) -> None:
        super().__init__()
        self._language_token_path = LanguageTokenPath()
        self._query_rows = QueryRows()
        self._language_hooked = False

    def ready_language_model(self) -> None:
        """Lets the built model take keys and values in front of all rows, recompute and compile as the settings say."""
        use_prefix_attention(self.language_model)
        if self.activation_checkpointing:
            self.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        if self.compile_backend is not None:
            for block in self.language_model.model.layers:
                block.compile(backend=self.compile_backend)

    def train(self, mode: bool = True) -> Self:
        """Keeps the frozen modules in evaluation mode.

        A decoder layer that shall recompute its activations has to say it is in training mode; what is inside it stays
        in evaluation mode, or a configuration with ``attention_dropout`` would drop only where memory is short.
        """
        super().train(False)
        if self.activation_checkpointing and self.is_loaded:
            for block in self.language_model.model.layers:
                block.training = mode
        return self

    def token_embedding(self) -> nn.Embedding:
        """Returns the frozen token embedding, (V, D)."""
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def pretrained_lm_head(self) -> nn.Module:
        """Returns the frozen head."""
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def sublayer(self, layer: int, name: Literal["attention", "mlp"]) -> nn.Module:
        """Returns a decoder layer's attention, which has two outputs, or its MLP, which has one."""
        block = self.language_model.model.layers[layer]
        return block.mlp if name == "mlp" else block.self_attn  # type: ignore[no-any-return]

    def decode_rows(self, embeddings: Tensor) -> Tensor:
        """Runs the decoder over (B, S, D) rows with the attached textual prompts."""
        return self._run_decoder(embeddings, use_cache=False)[0]

    def supervised_states(self, batch: Batch, shortcuts: Shortcuts) -> tuple[Tensor, Tensor]:
        """Takes the shortcuts where no prompt row stands in the decoder's sequence."""
        if shortcuts == EVERY_ROW or not self.shares_prefix():
            return super().supervised_states(batch, shortcuts)
        embeddings, labels, _ = self.assemble(batch)
        shared = 0
        if shortcuts.shared_rows_once and len(batch) > 1 and not self.attachment.draws_per_sample():
            shared = shared_rows(batch.input_ids, IMAGE_TOKEN_ID, self.attachment.raw_prompt_rows())
        prefix: Sequence[KeysAndValues | None] = self.learned_keys_and_values() or [None] * self.shape.text_layers
        wanted = nn.functional.pad(labels[:, 1:] != IGNORED_LABEL, (0, 1))
        if shortcuts.supervised_rows_only:
            return run_behind_prefix(self.decoder(), prefix, embeddings, shared, wanted), labels
        return run_behind_prefix(self.decoder(), prefix, embeddings, shared)[wanted[:, shared:]], labels

    def prefill(self, batch: Batch) -> DecodingState:
        """Runs the questions, padding on the right; the padding's keys stay in the cache and are hidden later."""
        embeddings, _, spans = self.assemble(batch)
        states, cache = self._run_decoder(embeddings, use_cache=True)
        real = spans != Span.PADDING
        lengths = real.sum(dim=1)
        last = states[torch.arange(len(lengths), device=states.device), lengths - 1]
        prompt_length = self.attachment.rows_before_text()
        visible = nn.functional.pad(real, (prompt_length, 0), value=True)
        return DecodingState(cache, visible, lengths + prompt_length, self.logits(last))

    def advance(self, state: DecodingState, tokens: Tensor) -> DecodingState:
        """Feeds one token a row at its own position; the prompts' keys and values are in the cache."""
        self._begin_decoding()
        visible = nn.functional.pad(state.visible, (0, 1), value=True)
        if visible.shape[1] > self.shape.maximum_positions:  # padding included: only then is a GPU waited for
            self.refuse_beyond_positions(int(state.next_position.max()) + 1)
        output = self.language_model.model(
            inputs_embeds=self.token_embedding()(tokens)[:, None],
            attention_mask=visible.long(),
            position_ids=state.next_position[:, None],
            past_key_values=state.cache,
            use_cache=True,
        )
        logits = self.logits(output.last_hidden_state[:, 0])
        return DecodingState(output.past_key_values, visible, state.next_position + 1, logits)

    def branch(self, state: DecodingState, tokens: Tensor, depths: Tensor, tree_mask: Tensor) -> Tensor:
        """Feeds all tokens in one forward pass under a mask of their own; (B, N, D)."""
        self._begin_decoding()
        questions, number = state.visible.shape[0], tokens.shape[-1]
        if state.visible.shape[1] + number > self.shape.maximum_positions:
            self.refuse_beyond_positions(int(state.next_position.max()) + int(depths.max()) + 1)
        of_question = state.visible[:, None].expand(-1, number, -1)
        seen = torch.cat([of_question, tree_mask.expand(questions, -1, -1)], dim=2)
        embeddings = self.token_embedding()(tokens).expand(questions, -1, -1)
        output = self.language_model.model(
            inputs_embeds=embeddings,
            attention_mask=additive_mask(seen, embeddings.dtype),
            position_ids=state.next_position[:, None] + depths,
            past_key_values=state.cache,
            use_cache=True,
        )
        return output.last_hidden_state  # type: ignore[no-any-return]

    def decoder(self) -> Any:  # noqa: ANN401
        """Returns transformers' model without its head."""
        return self.language_model.model

    def library_decoder(
        self, embeddings: Tensor, attention: Literal["eager"] | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Runs transformers' whole model, with hooks of its own for what is attached."""
        return library_decoder(self, embeddings, attention)

    def shares_prefix(self) -> bool:
        """Prompt rows, or queries, that stand in the sequence take ``prefill``."""
        attachment = self.attachment
        folds = attachment.textual_prompts is None or self._folds()
        return folds and attachment.path != "token" and not attachment.query_rows and takes_prefixes(self.decoder())

    def learned_keys_and_values(self) -> list[KeysAndValues]:
        """Folds textual prompts; rows that an earlier pass put into the sequence are forgotten."""
        self._put_rows_into_sequence(self.language_model.model, [])
        return self._prefix()

    def release_hooks(self) -> None:
        """Takes the decoder's hooks away."""
        self._language_token_path.remove()
        self._query_rows.remove()
        self._language_hooked = False

    def _begin_decoding(self) -> None:
        self._language_token_path.decodes_from_cache = True
        self._query_rows.rows = ()

    def _run_decoder(self, embeddings: Tensor, *, use_cache: bool) -> tuple[Tensor, Any]:
        decoder, prefix, prompts = self.decoder(), self._prefix(), self.attachment.textual_prompts
        rows = [] if prompts is None or self._folds() else prompts.layer_rows()
        length = self._put_rows_into_sequence(decoder, rows)
        if prefix and not rows and not use_cache and self.shares_prefix():
            return run_behind_prefix(decoder, prefix, embeddings), None
        if length:
            embeddings = prepend_placeholders(embeddings, rows)
        if use_cache:
            refuse_recomputing(decoder)
        cache = cache_with_prefix(decoder, prefix, embeddings.shape[0]) if prefix else None
        output = decoder(inputs_embeds=embeddings, past_key_values=cache, use_cache=use_cache or cache is not None)
        return output.last_hidden_state[:, length:], output.past_key_values

    def _prefix(self) -> list[KeysAndValues]:
        """Returns the keys and values in front of all rows for every layer; empty if there are none."""
        attachment, decoder = self.attachment, self.language_model.model
        if attachment.key_value_prefix is not None:
            return learned_prefix(decoder, attachment.key_value_prefix)
        if attachment.textual_prompts is not None and self._folds():
            return prompt_prefix(decoder, attachment.textual_prompts.layer_rows())
        return []

    def _folds(self) -> bool:
        """Tells whether textual prompts can be keys and values that are computed once.

        Dropout in front of low-rank layers draws for every sample's prompt rows, so ``auto`` does not fold while it is
        active; ``prefix`` draws once for all of them.
        """
        attachment = self.attachment
        alone = attachment.key_value_prefix is None and not attachment.query_rows
        is_complete = attachment.textual_prompts is None or attachment.textual_prompts.is_complete
        is_wanted = attachment.path == "prefix" or (attachment.path == "auto" and not attachment.draws_per_sample())
        return alone and is_wanted and is_complete

    def _put_rows_into_sequence(self, decoder: nn.Module, rows: Sequence[Tensor | None]) -> int:
        """Readies the token path for these rows; returns how many of them stand in front of the sequence."""
        self._language_token_path.rows = rows
        self._language_token_path.decodes_from_cache = False
        self._query_rows.rows = self.attachment.query_rows
        if not rows:
            return 0
        if not self._language_hooked:
            self._language_token_path.install(decoder.layers)  # type: ignore[arg-type]
            self._query_rows.install(decoder.layers)  # type: ignore[arg-type]
            self._language_hooked = True
        return next(candidate.shape[1] for candidate in rows if candidate is not None)
