"""An answer as it grows: pieces of text that join to what its tokens are as a whole.

A token may be a part of a character, and what tokens mean together is the tokenizer's to say: the whole is decoded
again for every token. Held back is what a later token may still change: half a character, bytes that may turn out to
be none, and white space that might be the answer's last.
"""

import re
from collections.abc import Iterable, Iterator

from lightning_m2pt.inputs.processing import Processor

INCOMPLETE = "\ufffd"
"""What decoders write for bytes that are no character, or not yet."""
BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
"""A byte as SentencePiece writes it. A run of them is text as a whole, or not at all."""


def text_pieces(processor: Processor, tokens: Iterable[int]) -> Iterator[str]:
    """Yields an answer's text in pieces, none of them empty.

    Args:
        processor: Decodes.
        tokens: The answer's, one after the other.

    Returns:
        Pieces that join to ``processor.decode`` of all tokens.

    Raises:
        RuntimeError: If the tokenizer writes earlier words otherwise for what comes behind them.
    """
    ids: list[int] = []
    given = ""
    for token in tokens:
        ids.append(token)
        text = settled_text(processor, ids)
        if len(text) > len(given) and text.startswith(given):
            yield text[len(given) :]
            given = text
    text = processor.decode(ids)
    if not text.startswith(given):
        raise RuntimeError(f"the tokenizer wrote {given!r:.60} at first, and {text!r:.60} in the end")
    if text != given:
        yield text[len(given) :]


def settled_text(processor: Processor, ids: list[int]) -> str:
    """Returns the text of tokens as far as no later token can change it."""
    number = len(ids)
    # Special tokens are left out of a text: bytes before and behind one are one run.
    while number and (ids[number - 1] in processor.tokenizer.all_special_ids or is_byte(processor, ids[number - 1])):
        number -= 1
    return processor.decode(ids[:number]).rstrip(INCOMPLETE).rstrip()


def is_byte(processor: Processor, token: int) -> bool:
    """Tells whether a token is a byte as SentencePiece writes it."""
    return BYTE_TOKEN.fullmatch(str(processor.tokenizer.convert_ids_to_tokens(token))) is not None
