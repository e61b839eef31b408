"""The tokens of a text from which learned rows start."""

from typing import TYPE_CHECKING

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.reworded_template import MOST_LETTERS, refuse_unreadable_words
from lightning_m2pt.inputs.templates import IMAGE_MARK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def tokens_of_rows(text: str, length: int, tokenizer: "PreTrainedTokenizerFast", where: str) -> list[int]:
    """Returns one token for each of so many rows: a text's own, from the beginning again if it has fewer.

    No sign of the model stands in front of them. A text with more tokens than rows is not cut: what a half of it would
    start is not what was written.

    Args:
        text: Words.
        length: Rows, at least one.
        tokenizer: The model's.
        where: Key of the text, for messages.

    Raises:
        BadInputError: If the text holds a sign of the model, words that the tokenizer does not know, no token at all,
            or more than there are rows.
    """
    if len(text) > MOST_LETTERS:
        raise BadInputError(f"the text has {len(text):,} letters", where=where, expected=f"at most {MOST_LETTERS:,}")
    if IMAGE_MARK in text:
        raise BadInputError(
            f"{IMAGE_MARK!r} stands in the text, a sign of the model",
            where=where,
            expected="words: rows are started from nothing else",
        )
    refuse_unreadable_words(text, tokenizer, where, "write it with other words")
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if not tokens:
        raise BadInputError(f"there is no token in {text!r:.40}", where=where, expected="a text of at least one word")
    if len(tokens) > length:
        raise BadInputError(
            f"the text has {len(tokens):,} tokens, and there are {length:,} rows",
            where=where,
            expected=f"at most {length:,} tokens",
            hint=f"a length of {len(tokens):,} takes all of it",
        )
    return [tokens[row % len(tokens)] for row in range(length)]
