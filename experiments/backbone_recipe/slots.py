"""Slots as rows of the language model: sums of word embeddings, made to look like visual rows."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from experiments.backbone_recipe.settings import TextSettings

WORDS_PER_SLOT = 5


def slot_ids(slots: Sequence[Sequence[Sequence[str]]], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Returns the words of slots as ids (B, R, 5), padded with the padding token."""
    vocabulary = tokenizer.get_vocab()
    padding = tokenizer.pad_token_id
    return torch.tensor(
        [
            [[vocabulary[word] for word in words] + [padding] * (WORDS_PER_SLOT - len(words)) for words in document]
            for document in slots
        ]
    )


def slot_rows(embedding: nn.Module, ids: Tensor, padding_id: int) -> Tensor:
    """Returns the sums (B, R, D) of the slots' word embeddings."""
    return (embedding(ids) * (ids != padding_id).unsqueeze(-1)).sum(dim=2)


def disturbed_slot_rows(
    embedding: nn.Module, ids: Tensor, padding_id: int, settings: TextSettings, generator: torch.Generator
) -> Tensor:
    """Returns slots (B, R, D) with words dropped, scales jittered and noise added, as training uses them."""
    documents, slots, _ = ids.shape
    drop = settings.largest_word_drop * torch.rand(documents, 1, 1, generator=generator)
    dropped = torch.rand(ids.shape, generator=generator) < drop
    rows = slot_rows(embedding, ids.masked_fill(dropped, padding_id), padding_id)
    scale = 1 + settings.scale_jitter * (2 * torch.rand(documents, slots, 1, generator=generator) - 1)
    return rows * scale + settings.noise * torch.randn(rows.shape, generator=generator)
