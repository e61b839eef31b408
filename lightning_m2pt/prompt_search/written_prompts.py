"""Texts that somebody wrote, as prompts: the tokens that are read of them, if none of these is forbidden."""

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompt_search.allowed_tokens import AllowedTokens, can_be_written
from lightning_m2pt.prompt_search.placing import with_words
from lightning_m2pt.prompt_search.prompt_texts import Prompt, PromptTexts

EDGES = ".,;:!?\"'()"
"""Signs that are no part of a word."""
WORD_OF_ANSWERS = "it has a word of answers"
"""Why a text is no prompt unless it is allowed."""


class WrittenPrompts:
    """Reads texts as prompts.

    Args:
        texts: The conversations, whose places are found.
        allowed: What no prompt may say.
        most_tokens: Of a prompt; None: any number.
    """

    def __init__(self, texts: PromptTexts, allowed: AllowedTokens, most_tokens: int | None = None) -> None:
        self.texts = texts
        self.allowed = allowed
        self.most_tokens = most_tokens

    def read(self, text: str) -> Prompt | str:
        """Returns the tokens that are read where a text stands in the first conversation, or why it is no prompt.

        Whether the same is read in all the others is asked before it is scored, as of any other prompt.
        """
        flat = " ".join(text.split())
        if not can_be_written(flat):
            return "it cannot be written in a prompt's file"
        if not (prompt := self.tokens(flat)):
            return "the tokenizer joins it with the words around it"
        if self.allowed.special.intersection(prompt):
            return "it has a word that the model does not know, or a special token"
        if self.allowed.said.intersection(prompt) or self.allowed.said.intersection(
            word.strip(EDGES) for word in flat.lower().split()
        ):
            return WORD_OF_ANSWERS
        if self.most_tokens is not None and len(prompt) > self.most_tokens:
            return f"it has more than {self.most_tokens} tokens"
        return prompt if self.texts.has_room(len(prompt)) else "a conversation becomes too long with it"

    def tokens(self, text: str) -> Prompt:
        """Returns the tokens of a text in the first conversation; none if it cannot be read there."""
        texts, opened = self.texts, self.texts.opened[0]
        sample = with_words(texts.samples[0], text, texts.position, texts.template)
        try:
            # No limit on length: that is another reason.
            (marked,) = texts.processor.encode_all([sample], texts.template)
        except BadInputError:  # a special token of the template's, or a picture's mark
            return ()
        length, left = divmod(len(marked) - len(opened.text), len(opened.places))
        if length < 1 or left:
            return ()
        place = opened.places[0]
        return tuple(marked.input_ids[place : place + length].tolist())
