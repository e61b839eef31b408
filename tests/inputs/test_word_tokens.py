"""The tokens that rows start from: a text's own, repeated, and never something else than words."""

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.word_tokens import tokens_of_rows
from lightning_m2pt.testing.small_processor import word_tokenizer

TOKENIZER = word_tokenizer()
"""Puts <s> in front of a text where it is asked to."""


def test_each_row_has_a_token_of_the_text_in_order():
    words = [TOKENIZER.convert_tokens_to_ids(word) for word in ("what", "color", "is")]
    assert tokens_of_rows("what color is", 3, TOKENIZER, "here") == words
    assert tokens_of_rows("what color is", 8, TOKENIZER, "here") == [*words, *words, *words[:2]]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no token"),
        (" \n", "no token"),
        ("what color is it", "4 tokens, and there are 3 rows"),
        ("what <unk>", "'<unk>' stands in the text"),
        ("</s> what", "'</s>' stands in the text"),
        ("what <image>", "'<image>' stands in the text"),
        ("what purple is", "does not know 'purple'"),
        ("b1 b2 b3 b4 b5 b6 b7 b2", "'b5' and 2 more"),
        ("what " * 4_001, "20,005 letters"),
    ],
)
def test_what_is_no_text_of_words_is_refused_by_its_key(text, named):
    with pytest.raises(BadInputError, match=named) as refused:
        tokens_of_rows(text, 3, TOKENIZER, "model.method.init_text")
    assert refused.value.where == "model.method.init_text"
