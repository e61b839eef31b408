"""Grammars of prompts: sentences with places, and the words that may stand in each of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

from lightning_m2pt.configuration.paths import is_yaml
from lightning_m2pt.configuration.strict_yaml import plain, read_mapping
from lightning_m2pt.errors import BadInputError

SHIPPED = Path(__file__).parent / "grammars"
"""Grammars that come with the package."""
SENTENCES, WORDS = "sentences", "words"
PLACE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
MOST_LETTERS = 2_000
"""Of a text."""
MOST_SENTENCES = 10**15


@dataclass(frozen=True)
class Grammar:
    """Sentences with places, numbered: every choice of words for them.

    Attributes:
        sentences: Texts with ``{place}`` in them.
        words: What may stand in each place.
    """

    sentences: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]

    @property
    def size(self) -> int:
        """How many sentences it makes; two of them may read alike."""
        return sum(prod(self.choices(text)) for text in self.sentences)

    def choices(self, text: str) -> list[int]:
        """Returns how many words each place of a text has."""
        return [len(self.words[place]) for place in PLACE.findall(text)]

    def sentence(self, number: int) -> str:
        """Returns one of them, by its number from 0: the first text's come first, and its last place turns first.

        Raises:
            ValueError: If there are not so many.
        """
        for text in self.sentences:
            choices = self.choices(text)
            if number < prod(choices):
                # re.split gives what stands between places and their names in turn.
                parts = PLACE.split(text)
                for place, size in enumerate(choices):
                    chosen = number // prod(choices[place + 1 :]) % size
                    parts[2 * place + 1] = self.words[parts[2 * place + 1]][chosen]
                return " ".join("".join(parts).split())
            number -= prod(choices)
        raise ValueError("there are not so many sentences")

    def digest(self) -> str:
        """Returns the SHA-256 of what it says."""
        return sha256(repr((self.sentences, sorted(self.words.items()))).encode()).hexdigest()


def shipped_grammars() -> list[str]:
    """Returns the names of the grammars that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read_grammar(word: str) -> Grammar:
    """Returns the grammar of a file, or one that comes with the package.

    Args:
        word: A name, or a YAML file with ``sentences`` (a list of texts) and ``words`` (a list of texts a place).

    Raises:
        BadInputError: If there is none, it says something else, or it makes fewer than two sentences.
    """
    if not is_yaml(word) and word not in shipped_grammars():
        raise BadInputError(
            f"there is no grammar {word!r:.60}",
            where="command line: --grammar",
            expected=f"a YAML file of {SENTENCES} and {WORDS}, or one of {', '.join(shipped_grammars())}",
        )
    path = Path(word) if is_yaml(word) else SHIPPED / f"{word}.yaml"
    content = plain(read_mapping(path))
    other = next((key for key in content if key not in (SENTENCES, WORDS)), None)
    if other is not None:
        raise BadInputError(f"a grammar has no {other!r:.60}", where=str(path), expected=f"{SENTENCES} and {WORDS}")
    words = content.get(WORDS, {})
    if not isinstance(words, dict):
        raise BadInputError("this is no list of places", where=f"{path}: {WORDS}", expected="a list of texts for each")
    found = Grammar(
        texts_of(content.get(SENTENCES), f"{path}: {SENTENCES}", PLACE),
        {name: texts_of(texts, f"{path}: {WORDS}.{name}") for name, texts in words.items()},
    )
    named = {place for text in found.sentences for place in PLACE.findall(text)}
    if named != set(words):
        lost = sorted(named.symmetric_difference(words))[0]
        raise BadInputError(
            f"{lost!r:.60} has no words" if lost in named else f"{lost!r:.60} stands in no sentence",
            where=f"{path}: {WORDS}",
            expected="words for every place of a sentence, and for no other",
        )
    if not 2 <= found.size <= MOST_SENTENCES:
        raise BadInputError(
            f"the grammar makes {found.size:,} sentences", where=str(path), expected=f"2 to {MOST_SENTENCES:,}"
        )
    return found


def texts_of(value: Any, where: str, places: re.Pattern[str] | None = None) -> tuple[str, ...]:  # noqa: ANN401
    """Returns a list of texts.

    Args:
        value: What a file says.
        where: Named in errors.
        places: What may stand in braces; None: nothing.

    Raises:
        BadInputError: If it is none, is empty, or has a text that is too long or has braces otherwise.
    """
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise BadInputError("this is no list of texts", where=where, expected="at least one text, in quotation marks")
    for text in value:
        if any(sign in (places.sub("", text) if places else text) for sign in "{}"):
            raise BadInputError(
                f"{text!r:.80} has a brace that is no place",
                where=where,
                expected="{name} in a sentence, and no brace in the words of a place",
            )
        if len(text) > MOST_LETTERS:
            raise BadInputError(f"a text of {len(text):,} letters", where=where, expected=f"at most {MOST_LETTERS:,}")
    return tuple(value)
