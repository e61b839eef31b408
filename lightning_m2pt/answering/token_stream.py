"""Greedy decoding of one conversation, a token at a time: whoever asks may stop between two of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from lightning_m2pt.answering.decoding import refuse_not_finite
from lightning_m2pt.answering.greedy import likeliest_tokens
from lightning_m2pt.answering.kept_rows import KeptRows, with_token
from lightning_m2pt.backbones.base import Backbone


@dataclass
class TokenStream:
    """The most likely tokens behind a conversation, up to an end token or the limit; iterated once.

    Attributes:
        backbone: A loaded backbone, as the conversation was read by it.
        kept: Where the conversation stands: with every token that was fed since. The last one of an answer is not.
        max_new_tokens: Longest answer, the end token included.
        end_token_ids: Tokens that end it.
        is_complete: Whether an end token came.
    """

    backbone: Backbone
    kept: KeptRows
    max_new_tokens: int
    end_token_ids: Sequence[int]
    is_complete: bool = field(default=False, init=False)

    @torch.inference_mode()
    def __iter__(self) -> Iterator[int]:
        """Yields the answer's tokens without the end token; each is chosen when it is asked for.

        Raises:
            BadInputError: If something else is attached meanwhile, or the language model has no further position.
            DivergedError: If the model's numbers are not finite.
        """
        for step in range(self.max_new_tokens):
            tokens, differences = likeliest_tokens(self.backbone, self.kept.state.logits)
            refuse_not_finite(differences.tolist())
            token = int(tokens[0])
            if token in self.end_token_ids:
                self.is_complete = True
                return
            yield token
            if step < self.max_new_tokens - 1:
                self.kept = with_token(self.backbone, self.kept, token)
