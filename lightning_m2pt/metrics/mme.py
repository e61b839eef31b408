"""MME's score: points of every subtask, and their sums.

Source: ``calculation.py`` in ``eval_tool.zip`` of the MME repository (2023-07-01). Per subtask: accuracy over
questions, accuracy+ over pictures with both questions right, score = 100 accuracy + 100 accuracy+. Perception is the
sum of its 10 subtasks (at most 2000), cognition of its 4 (at most 800). An answer that was read as neither yes nor no
is wrong.

lmms-eval and VLMEvalKit make the same of their own readings, but report the two sums and no total; VLMEvalKit calls
cognition "reasoning".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_m2pt.errors import BadInputError

SUBTASK_SCORE_MAXIMUM = 200
QUESTIONS_PER_IMAGE = 2
PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
SUBTASKS = PERCEPTION + COGNITION
"""The official order."""


@dataclass(frozen=True)
class SubtaskScore:
    """One subtask's result; accuracy and accuracy+ are fractions."""

    accuracy: float
    accuracy_plus: float
    questions: int

    @property
    def score(self) -> float:
        """Official points, at most 200."""
        return 100 * self.accuracy + 100 * self.accuracy_plus

    def row(self) -> dict[str, float]:
        """Returns the subtask's numbers."""
        return {
            "score": self.score,
            "accuracy": self.accuracy,
            "accuracy_plus": self.accuracy_plus,
            "n": self.questions,
        }


def mme_scores(
    subtasks: Sequence[str], image_ids: Sequence[str], parsed: Sequence[str | None], targets: Sequence[str]
) -> dict[str, SubtaskScore]:
    """Returns the score of every subtask that is there, in the official order.

    Args:
        subtasks: The subtask of every question.
        image_ids: The picture of every question; with the subtask it makes the pair, never the position.
        parsed: "yes", "no" or None for every answer.
        targets: "yes" or "no" for every question.

    Raises:
        BadInputError: If a subtask is unknown, or a picture has not exactly two questions.
    """
    right: dict[str, dict[str, list[bool]]] = {}
    for subtask, image_id, answer, target in zip(subtasks, image_ids, parsed, targets, strict=True):
        right.setdefault(subtask, {}).setdefault(image_id, []).append(answer == target)
    scores = {}
    for subtask in sorted(right, key=position_of):
        images = right[subtask]
        for image_id, answers in images.items():
            if len(answers) != QUESTIONS_PER_IMAGE:
                raise BadInputError(
                    f"the picture {image_id!r:.80} of {subtask} has {len(answers)} answers",
                    where="predictions",
                    expected=f"exactly {QUESTIONS_PER_IMAGE}, or accuracy+ has no meaning",
                )
        scores[subtask] = SubtaskScore(
            accuracy=sum(map(sum, images.values())) / (QUESTIONS_PER_IMAGE * len(images)),
            accuracy_plus=sum(map(all, images.values())) / len(images),
            questions=QUESTIONS_PER_IMAGE * len(images),
        )
    return scores


def position_of(subtask: str) -> int:
    """Returns a subtask's place in the official order.

    Raises:
        BadInputError: If there is no such subtask.
    """
    if subtask not in SUBTASKS:
        raise BadInputError(f"unknown MME subtask {subtask!r:.80}", where="predictions", expected=", ".join(SUBTASKS))
    return SUBTASKS.index(subtask)


def group_sums(scores: Mapping[str, SubtaskScore]) -> dict[str, dict[str, float]]:
    """Returns points and the maximum of the subtasks that are there: perception, cognition, and both."""
    sums = {}
    for group, members in (("perception", PERCEPTION), ("cognition", COGNITION), ("total", SUBTASKS)):
        present = [scores[subtask].score for subtask in members if subtask in scores]
        if present:
            sums[group] = {"score": sum(present), "maximum": SUBTASK_SCORE_MAXIMUM * len(present)}
    return sums


def mme_name(scores: Mapping[str, SubtaskScore]) -> str:
    """Returns ``MME`` if all 14 subtasks are there, otherwise for example ``MME[4 of 14]``."""
    return "MME" if len(scores) == len(SUBTASKS) else f"MME[{len(scores)} of {len(SUBTASKS)}]"
