"""How a token is shown that a vocabulary writes in bytes."""

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inspection.samples import token_text
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD, small_processor

OF_BYTES = {"\u0120of": " of", "\u00c3\u00a9": "\u00e9", "\u00e7\u013c\u0126": "\u7684", "\u010a\u010a": "\u23ce\u23ce"}
PART = "\u00e7\u013c"
"""Two of the three bytes of a character."""


@pytest.fixture
def of_bytes() -> Processor:
    vocabulary = {token: number for number, token in enumerate([*OF_BYTES, PART, "<|im_start|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_start|>", pad_token="<|im_start|>")
    return Processor(fast, 24, CLIP_MEAN, CLIP_STD)


def test_bytes_are_shown_as_the_characters_that_they_are(of_bytes: Processor) -> None:
    assert [token_text(of_bytes, number) for number in range(len(OF_BYTES))] == list(OF_BYTES.values())


def test_a_part_of_a_character_and_a_special_token_are_shown_as_they_are_written(of_bytes: Processor) -> None:
    assert [token_text(of_bytes, len(OF_BYTES)), token_text(of_bytes, len(OF_BYTES) + 1)] == [PART, "<|im_start|>"]


def test_a_vocabulary_of_words_is_shown_as_it_is() -> None:
    processor = small_processor()
    assert token_text(processor, processor.tokenizer.convert_tokens_to_ids("blue")) == "blue"
