"""Which tokens a searched prompt may be made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.inputs.templates import IMAGE_MARK
from lightning_m2pt.prompt_search.prompt_texts import PromptTexts, supervised

SIGNS = ("{", "}", "\ufffd", IMAGE_MARK)
"""What no word may hold: signs of a template's file, the sign of bytes that are no letter, a picture's mark."""


@dataclass(frozen=True)
class AllowedTokens:
    """Tokens that a prompt may be made of.

    Attributes:
        ids: Ascending.
        left_out: How many of the model's rows are left out, by the reason.
        special: Tokens that are signs and not words.
        said: Tokens and words of answers; nothing where these are allowed.
    """

    ids: tuple[int, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    special: frozenset[int] = frozenset()
    said: frozenset[int | str] = frozenset()


def allowed_tokens(texts: PromptTexts, answered: Sequence[Sample], answer_words: bool) -> AllowedTokens:
    """Returns the tokens that can be written, are read again as they were, and say no answer; opens the texts.

    Args:
        texts: Conversations that prompts are scored on.
        answered: Conversations whose answers' words are left out.
        answer_words: Allow these.

    Raises:
        BadInputError: If fewer than two are left, or no place for a prompt is found.
    """
    processor = texts.processor
    tokenizer = processor.tokenizer
    rows = processor.vocabulary_size or len(tokenizer)
    left_out: dict[str, int] = {}
    known = [number for number in range(rows) if number < len(tokenizer)]
    left_out["rows of the model without a token"] = rows - len(known)
    special = special_tokens(processor)
    plain = [number for number in known if number not in special]
    left_out["special tokens"] = len(known) - len(plain)
    written = [number for number in plain if can_be_written(texts.words((number,)))]
    left_out["tokens that are no text by themselves"] = len(plain) - len(written)
    said = set() if answer_words else words_of_answers(texts, answered)
    if said:
        free = [number for number in written if number not in said and texts.words((number,)).lower() not in said]
        left_out["words of answers"] = len(written) - len(free)
        written = free
    if written:
        texts.open(written)
    alive = [number for (number,) in texts.survivors([(each,) for each in written], of_samples=1)] if written else []
    left_out["tokens that are read otherwise where they stand"] = len(written) - len(alive)
    if len(alive) < 2:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise BadInputError(
            f"{len(alive)} tokens are left to search among",
            where="search",
            expected=f"two or more; left out: {reasons}",
            hint="" if answer_words else "--answer-words yes allows the words of answers",
        )
    return AllowedTokens(tuple(alive), left_out, frozenset(special), frozenset(said))


def special_tokens(processor: Processor) -> set[int]:
    """Returns the tokens that are signs and not words, those for pictures among them."""
    added = processor.tokenizer.added_tokens_decoder
    signs = {number for number, token in added.items() if token.special}
    return {*signs, *processor.tokenizer.all_special_ids, *processor.picture_tokens, processor.pad_token_id}


def can_be_written(text: str) -> bool:
    """Tells whether a token's text can stand in a template's file and be seen there."""
    return bool(text) and text.isprintable() and not any(sign in text for sign in SIGNS)


def words_of_answers(texts: PromptTexts, answered: Sequence[Sample]) -> set[int | str]:
    """Returns the tokens of all answers, and their words in small letters."""
    encoded: Iterable[EncodedText] = texts.processor.encode_each(answered, texts.template)
    tokens = {int(number) for text in encoded for number in text.input_ids[supervised(text)]}
    words = {texts.words((number,)).lower() for number in tokens}
    words |= {
        word.lower().strip(".,;:!?") for sample in answered for turn in sample.turns for word in turn.answer.split()
    }
    return {*tokens, *words}
