"""Questions and answers as token ids, through the project's own conversation template."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from experiments.testbed.asking import AskedQuestion
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.samples import Turn
from lightning_m2pt.inputs.templates import PLAIN


@dataclass(frozen=True)
class TokenizedText:
    """The text behind the image or the slots.

    Attributes:
        token_ids: The tokens.
        is_answer: Whether each is of an answer, its end token included.
    """

    token_ids: list[int]
    is_answer: list[bool]


@dataclass(frozen=True)
class TextBatch:
    """Texts of different lengths, padded on the right.

    Attributes:
        token_ids: (B, T) int64.
        is_answer: (B, T) bool.
        is_text: (B, T) bool, false on padding.
    """

    token_ids: Tensor
    is_answer: Tensor
    is_text: Tensor


class ConversationTokenizer:
    """Tokenizes conversations, remembering pieces, which come back often."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def tokenize(self, questions: Sequence[AskedQuestion], with_answer: bool = True) -> TokenizedText:
        """Tokenizes questions and their answers (without the last answer where ``with_answer`` is false)."""
        turns = [Turn(question.question, question.answer) for question in questions]
        if not with_answer:
            turns[-1] = Turn(turns[-1].question)
        token_ids: list[int] = []
        is_answer: list[bool] = []
        for piece in PLAIN.pieces(turns):
            if piece.span is Span.IMAGE:
                continue
            ids = self._piece_ids(piece.text)
            token_ids += ids
            is_answer += [piece.span is Span.ANSWER] * len(ids)
        return TokenizedText(token_ids, is_answer)

    def tokenize_within(self, questions: Sequence[AskedQuestion], maximum: int) -> TokenizedText:
        """Tokenizes as many of the questions as fit into ``maximum`` tokens, leaving out those that do not."""
        text = TokenizedText([], [])
        for question in questions:
            more = self.tokenize([question])
            if len(text.token_ids) + len(more.token_ids) <= maximum:
                text = TokenizedText(text.token_ids + more.token_ids, text.is_answer + more.is_answer)
        return text

    def _piece_ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]


def pad_texts(texts: Sequence[TokenizedText], padding_id: int) -> TextBatch:
    """Pads texts on the right to the longest of them."""
    length = max(len(text.token_ids) for text in texts)
    token_ids = torch.full((len(texts), length), padding_id)
    is_answer = torch.zeros(len(texts), length, dtype=torch.bool)
    is_text = torch.zeros(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        size = len(text.token_ids)
        token_ids[row, :size] = torch.tensor(text.token_ids)
        is_answer[row, :size] = torch.tensor(text.is_answer)
        is_text[row, :size] = True
    return TextBatch(token_ids, is_answer, is_text)
