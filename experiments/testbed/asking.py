"""How questions are asked: a question type draws *facts* from a scene and puts them into one of its phrasings."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from experiments.testbed.facts import FactFunction
from experiments.testbed.scenes import Scene

ATTEMPTS_PER_QUESTION = 8
YES_NO = ("yes", "no")
TRUE_FALSE = ("true", "false")


class Use(Enum):
    """Where a question type may be asked."""

    TUNED = "tuned"
    """In pretraining text, and with images in stage 2."""
    HELD_OUT = "held out"
    """In pretraining text only; evaluation asks it about images, in other words."""
    TEXT_ONLY = "text only"
    """In pretraining text only, as another form of a held-out type; evaluation does not ask it."""


@dataclass(frozen=True)
class Phrasing:
    """A question with ``{slots}``, and the words of a yes or no where the answer is a truth value."""

    text: str
    truth_words: tuple[str, str] = YES_NO


@dataclass(frozen=True)
class AskedQuestion:
    """A question about one scene."""

    type_name: str
    question: str
    answer: str


@dataclass(frozen=True)
class QuestionType:
    """A kind of question.

    Attributes:
        name: Task name.
        use: Where it may be asked.
        weight: How often it is drawn in pretraining text, relative to the others; a stage may have its own.
        draw: Draws facts from a scene, or nothing where the scene does not allow the question.
        phrasings: Its forms, all equally likely.
    """

    name: str
    use: Use
    weight: float
    draw: FactFunction
    phrasings: tuple[Phrasing, ...]

    def ask(self, scene: Scene, generator: random.Random) -> AskedQuestion | None:
        """Asks one question about the scene, or nothing where the scene does not allow this type."""
        drawn = self.draw(scene, generator)
        if drawn is None:
            return None
        phrasing = generator.choice(self.phrasings)
        answer = drawn.answer
        if isinstance(answer, bool):
            answer = phrasing.truth_words[0 if answer else 1]
        return AskedQuestion(self.name, phrasing.text.format(**drawn.words), answer)


def ask_questions(
    scene: Scene,
    generator: random.Random,
    types: Sequence[QuestionType],
    count: int,
    weights: Sequence[float] | None = None,
) -> list[AskedQuestion]:
    """Asks up to ``count`` questions about a scene, no question twice.

    Args:
        scene: What is asked about.
        generator: Where the randomness comes from.
        types: The types to draw from.
        count: Number of questions; fewer come back where the scene allows too few.
        weights: How often each type is drawn; evenly where not given.
    """
    asked: dict[str, AskedQuestion] = {}
    for _ in range(count * ATTEMPTS_PER_QUESTION):
        if len(asked) == count:
            break
        question = generator.choices(types, weights)[0].ask(scene, generator)
        if question is not None:
            asked.setdefault(question.question, question)
    return list(asked.values())
