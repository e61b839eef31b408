"""The decoder side of a backbone whose language model is a causal one of transformers.

Every way to run it is here: whole sequences, supervised rows alone, questions and their answers token by token. A
backbone that pairs such a model with another vision tower inherits all of it.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.decoders.reference import refuse_by_reference
from lightning_m2pt.backbones.library_forward import library_decoder, library_logits, library_logits_of_tokens
from lightning_m2pt.backbones.model_output import DecodingState
from lightning_m2pt.backbones.quantised import (
    Quantization,
    bytes_of_quantised,
    quantise_layers,
)
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.picture_batch import PADDING_SEGMENT, SHARED_SEGMENT
from lightning_m2pt.prompts.decoder_pass import append_rows, prompt_rows
from lightning_m2pt.prompts.key_value_prefix import QueryRows, learned_prefix
from lightning_m2pt.prompts.past_rows import PastRows, no_rows, takes_past_rows, use_past_rows
from lightning_m2pt.prompts.prefix_decoder import run_behind_prefix, shared_rows
from lightning_m2pt.prompts.rotary_axes import behind
from lightning_m2pt.prompts.rows_run_again import RowsRunAgain, run_again
from lightning_m2pt.prompts.token_path import LanguageTokenPath, prepend_placeholders


class CausalDecoding(Backbone, ABC):
    """A backbone with a causal language model of a proven form, or of one that the reference runs.

    The reference is the library's own forward with prompt rows in the sequence: nothing is kept of rows that have run,
    and nothing is left out. ``BackboneShape.runs_reference`` says which it is.

    Attributes:
        language_model: The model with its head; subclasses set it. Where it is more than a language model, subclasses
            say what its decoder is.
    """

    language_model: Any

    def __init__(self) -> None:
        super().__init__()
        self._language_token_path = LanguageTokenPath()
        self._query_rows = QueryRows()
        self._language_hooked = False

    def quantise_decoder(self, quantization: Quantization | None) -> None:
        """Settles how the weights of the decoder's layers are packed; constructors call it, before anything is built.

        Raises:
            BadInputError: If the layers shall be compiled, which is not proven of packed ones.
        """
        if quantization is not None and self.compile_backend is not None:
            raise BadInputError(
                f"layers in {quantization} are not compiled",
                where="model.backbone.compile_backend",
                expected="null, or quantization: null",
                hint="only the uncompiled product by a packed weight is proven",
            )
        self.quantization = quantization
        self.shape.quantised_language_model = quantization is not None

    def pack_on_meta(self) -> None:
        """Lets a language model that was built on the meta device have the layers that it will be loaded with."""
        if self.quantization is not None:
            quantise_layers(self.language_model, self.decoder().layers, self.quantization)

    def base_bytes(self) -> int:
        """Returns the bytes of the untouched model as it is packed, with the one weight that is unpacked at a time."""
        return bytes_of_quantised(self.language_model, self.base_parameters(), getattr(torch, self.dtype_name))

    def ready_language_model(self) -> None:
        """Lets the built model take past rows, recompute and compile as the settings say.

        A layer's forward is compiled, not the layer: hooks stay outside, or each layer would have a graph of its own.
        """
        if not self.shape.runs_reference:
            use_past_rows(self.decoder())
        if self.activation_checkpointing:
            model = self.language_model
            # transformers before 5.23 knows it by its former name alone, and later ones warn of that.
            is_new = hasattr(model, "activation_checkpointing_enable")
            enable = model.activation_checkpointing_enable if is_new else model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        if self.compile_backend is not None:
            for block in self.decoder().layers:
                block.forward = torch.compile(block.forward, backend=self.compile_backend)

    def train(self, mode: bool = True) -> Self:
        """Keeps the frozen modules in evaluation mode.

        A decoder layer that shall recompute its activations has to say it is in training mode; what is inside it stays
        in evaluation mode, or a configuration with ``attention_dropout`` would drop only where memory is short.
        """
        super().train(False)
        if self.activation_checkpointing and self.is_loaded:
            for block in self.decoder().layers:
                block.training = mode
        return self

    def token_embedding(self) -> nn.Embedding:
        """Returns the frozen token embedding, (V, D)."""
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def pretrained_lm_head(self) -> nn.Module:
        """Returns the frozen head."""
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def sharding_units(self) -> list[nn.Module]:
        """Returns the tower's blocks, the embedding, the decoder's layers and the head; tied ones stay whole."""
        blocks, layers = self.attention_layers()
        embedding, head = self.token_embedding(), self.pretrained_lm_head()
        is_tied = head.weight is embedding.weight
        return [*blocks, *layers] if is_tied else [*blocks, embedding, *layers, head]

    def sublayer(self, layer: int, name: Literal["attention", "mlp"]) -> nn.Module:
        """Returns a decoder layer's attention, which has two outputs, or its MLP, which has one."""
        block = self.decoder().layers[layer]
        return block.mlp if name == "mlp" else block.self_attn  # type: ignore[no-any-return]

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Maps (..., D) hidden states to (..., V) logits, scaled and capped as the model's configuration says."""
        if self.shape.runs_reference:
            return library_logits(self, hidden_states)
        logits, config = super().logits(hidden_states), self.language_model.config
        scaling, cap = getattr(config, "logits_scaling", 1), getattr(config, "final_logit_softcapping", None)
        if scaling != 1:  # Granite
            logits = logits / scaling
        return logits if cap is None else cap * torch.tanh(logits / cap)  # Gemma-2 and later

    def decode_rows(self, embeddings: Tensor, positions: Tensor | None = None) -> Tensor:
        """Runs the decoder over (B, S, D) rows with the attached textual prompts."""
        return self._run_decoder(embeddings, places=positions)[0]

    def supervised_states(self, batch: Batch, shortcuts: Shortcuts) -> tuple[Tensor, Tensor]:
        """Takes the shortcuts where no prompt row stands in the decoder's sequence."""
        if shortcuts == EVERY_ROW or not self.shares_prefix():
            return super().supervised_states(batch, shortcuts)
        rows, shared, raw = self.assembled(batch), 0, self.attachment.raw_prompt_rows()
        if shortcuts.shared_rows_once and len(batch) > 1 and not self.attachment.draws_per_sample():
            shared = shared_rows(batch.input_ids, IMAGE_TOKEN_ID, raw)
        prefix = self.learned_keys_and_values()
        wanted = nn.functional.pad(rows.labels[:, 1:] != IGNORED_LABEL, (0, 1))
        if shared:  # samples without a picture may be alike up to their answers, and in them
            shared = min(shared, int(wanted.any(dim=0).long().argmax()))
        front = rows.embeddings[:1, :shared]
        if rows.frozen_words and not raw:  # autograd knows whole tensors, and pictures' rows are in this one
            front = front.detach()
        given = self.decoder(), prefix, rows.embeddings, rows.positions, front
        if shortcuts.supervised_rows_only:
            return run_behind_prefix(*given, wanted), rows.labels
        return run_behind_prefix(*given)[wanted[:, shared:]], rows.labels

    def prefill(self, batch: Batch) -> DecodingState:
        """Runs the questions, padding on the right; the padding stays among the past rows and is hidden later."""
        rows = self.assembled(batch)
        real = rows.spans != Span.PADDING
        lasts = real.sum(dim=1) - 1
        states, past = self._run_decoder(rows.embeddings, lasts, rows.positions)
        learned = past.length - real.shape[1]
        ends = lasts if rows.positions is None else rows.positions.gather(1, lasts[:, None])[:, 0]
        shown = torch.where(nn.functional.pad(real, (learned, 0), value=True), SHARED_SEGMENT, PADDING_SEGMENT)
        questions = torch.arange(len(lasts), device=lasts.device)
        slots = torch.zeros_like(questions)
        return DecodingState(past, shown, questions, slots, behind(ends + learned), self.logits(states))

    def append_rows(
        self, past: PastRows, embeddings: Tensor, positions: Tensor, visible: Tensor, wanted: Tensor | None = None
    ) -> tuple[Tensor, PastRows]:
        """Runs new rows behind past rows; prompt rows in the sequence are among these, unless all run again."""
        if isinstance(past, RowsRunAgain):
            return run_again(self._run_within_positions, past, embeddings, positions, visible, wanted)
        self._put_rows_into_sequence(self.decoder(), [])
        self._query_rows.rows = ()
        return append_rows(self.decoder(), past, embeddings, positions, visible, wanted)

    def decoder(self) -> Any:  # noqa: ANN401
        """Returns transformers' model without its head."""
        return self.language_model.model

    def library_decoder(
        self, embeddings: Tensor, attention: Literal["eager"] | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Runs transformers' whole model, with hooks of its own for what is attached."""
        return library_decoder(self, embeddings, attention, positions)

    def library_logits_of_tokens(self, tokens: Tensor) -> Tensor | None:
        """Runs transformers' whole model over tokens, with nothing put into the sequence."""
        return library_logits_of_tokens(self, tokens)

    def shares_prefix(self) -> bool:
        """Prompt rows, or queries, that stand in the sequence take ``prefill``."""
        attachment = self.attachment
        folds = attachment.textual_prompts is None or self._folds()
        return folds and attachment.path != "token" and not attachment.query_rows and takes_past_rows(self.decoder())

    def learned_keys_and_values(self) -> PastRows:
        """Folds textual prompts; rows that an earlier pass put into the sequence are forgotten."""
        attachment, decoder = self.attachment, self.decoder()
        folded = attachment.path == "prefix" and attachment.textual_prompts is not None
        if attachment.key_value_prefix is not None or attachment.query_rows or folded:
            refuse_by_reference(self.shape, "learned keys, values and queries, and prompts as keys and values,")
        self._put_rows_into_sequence(decoder, [])
        if attachment.key_value_prefix is not None:
            return learned_prefix(decoder, attachment.key_value_prefix)
        if attachment.textual_prompts is not None and self._folds():
            return prompt_rows(decoder, attachment.textual_prompts.layer_rows())
        return no_rows(self.token_embedding().weight.device)

    def release_hooks(self) -> None:
        """Takes the decoder's hooks away."""
        self._language_token_path.remove()
        self._query_rows.remove()
        self._language_hooked = False

    def _run_within_positions(self, embeddings: Tensor) -> Tensor:
        """Runs whole sequences (B, S, D) behind prompt rows that stand among no past rows, but have positions."""
        self.refuse_beyond_positions(embeddings.shape[1] + self.attachment.rows_before_text())
        return self.decode_rows(embeddings)

    def _run_decoder(
        self, embeddings: Tensor, lasts: Tensor | None = None, places: Tensor | None = None
    ) -> tuple[Tensor, PastRows]:
        """Runs (B, S, D) rows; with ``lasts`` (B,) returns these rows' states alone, and what is kept of all."""
        if self.shape.runs_reference and lasts is not None:
            self.refuse_beyond_positions(embeddings.shape[1] + self.attachment.rows_before_text())
            positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
            states = self._run_decoder(embeddings)[0][torch.arange(len(lasts), device=lasts.device), lasts]
            return states, RowsRunAgain((), positions, embeddings=embeddings)
        decoder, prompts, past = self.decoder(), self.attachment.textual_prompts, self.learned_keys_and_values()
        rows = [] if prompts is None or self._folds() else prompts.layer_rows()
        length = self._put_rows_into_sequence(decoder, rows)
        if length:
            embeddings = prepend_placeholders(embeddings, rows)
            first = next(number for number, candidate in enumerate(rows) if candidate is not None)
            past = replace(past, placeholders=(first, slice(past.length, past.length + length)))
        if lasts is None and not past.length and places is None:
            return decoder(inputs_embeds=embeddings, use_cache=False).last_hidden_state[:, length:], past
        positions = past.length + numbers_in_front(places, embeddings, length)
        if lasts is None and not past.length:
            output = decoder(inputs_embeds=embeddings, position_ids=positions, use_cache=False)
            return output.last_hidden_state[:, length:], past
        if lasts is None:
            return append_rows(decoder, past, embeddings, positions, keeps=False)[0][:, length:], past
        if not length:
            states, past = append_rows(decoder, past, embeddings, positions, wanted=lasts[:, None])
            return states[:, 0], past
        states, past = append_rows(decoder, past, embeddings, positions)
        return states[torch.arange(len(lasts), device=lasts.device), lasts + length], past

    def _folds(self) -> bool:
        """Tells whether textual prompts can be keys and values that are computed once.

        Dropout in front of low-rank layers draws for every sample's prompt rows, so ``auto`` does not fold while it is
        active; ``prefix`` draws once for all of them.
        """
        attachment = self.attachment
        alone = attachment.key_value_prefix is None and not attachment.query_rows and takes_past_rows(self.decoder())
        is_complete = attachment.textual_prompts is None or attachment.textual_prompts.is_complete
        is_wanted = attachment.path == "prefix" or (attachment.path == "auto" and not attachment.draws_per_sample())
        return alone and is_wanted and is_complete

    def _put_rows_into_sequence(self, decoder: nn.Module, rows: Sequence[Tensor | None]) -> int:
        """Readies the token path for these rows; returns how many of them stand in front of the sequence."""
        self._language_token_path.rows = rows
        self._query_rows.rows = self.attachment.query_rows
        if not rows:
            return 0
        if not self._language_hooked:
            self._language_token_path.install(decoder.layers)  # type: ignore[arg-type]
            if not self.shape.runs_reference:
                self._query_rows.install(decoder.layers)  # type: ignore[arg-type]
            self._language_hooked = True
        return next(candidate.shape[1] for candidate in rows if candidate is not None)


def numbers_in_front(places: Tensor | None, embeddings: Tensor, length: int) -> Tensor:
    """Returns the positions (B or 1, N) of rows with prompt rows in front.

    Args:
        places: (B, N - P) positions of the rows behind the prompts'; None: their numbers.
        embeddings: (B, N, D), the prompts' rows in front.
        length: P.
    """
    numbers = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
    if places is None:
        return numbers
    return torch.cat([numbers[:, :length].expand(len(places), -1), places + length], dim=1)
