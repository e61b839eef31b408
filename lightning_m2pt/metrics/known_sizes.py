"""How many questions the sets have in the revisions that are known, so that a set can be recognised by counting.

Sources: the files at the sets' own addresses, counted; see the data modules for each. A number that could not be
counted is left out. A count proves nothing about the content: predictions carry a fingerprint for that.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # scores need these sizes, and no torch
    from lightning_m2pt.inputs.samples import Question

MOST_NAMED = 3


@dataclass(frozen=True)
class Revision:
    """One state of a set, or one of its splits.

    Attributes:
        name: What it is called in tables.
        questions: Number of questions of every subtask.
        pictures: Number of pictures, where known.
        is_official: Whether this is what scores are commonly reported on today.
    """

    name: str
    questions: Mapping[str, int]
    pictures: int | None = None
    is_official: bool = True

    @property
    def total(self) -> int:
        """All questions."""
        return sum(self.questions.values())


REVISIONS: dict[str, tuple[Revision, ...]] = {
    "mme": (
        Revision(
            "official",
            {
                **dict.fromkeys(("existence", "count", "position", "color"), 60),
                "posters": 294,
                "celebrity": 340,
                **dict.fromkeys(("scene", "landmark", "artwork"), 400),
                "OCR": 40,
                "commonsense_reasoning": 140,
                **dict.fromkeys(("numerical_calculation", "text_translation", "code_reasoning"), 40),
            },
            pictures=1187,
        ),
    ),
    "vsr": (
        Revision("zero-shot test", {"": 1222}, pictures=715),
        Revision("random test", {"": 2195}),
        Revision("zero-shot test of the 2022 snapshot", {"": 731}, is_official=False),
        Revision("random test of the 2022 snapshot", {"": 2024}, is_official=False),
    ),
    "snli_ve": (Revision("test", {"": 17_901}), Revision("dev", {"": 17_858})),
    "pope": (
        Revision("official", {"random": 3000, "popular": 3000, "adversarial": 3000}, pictures=500),
        Revision(
            "older, with 2,910 random questions",
            {"random": 2910, "popular": 3000, "adversarial": 3000},
            pictures=500,
            is_official=False,
        ),
    ),
    "cifar10": (Revision("test", {"": 10_000}, pictures=10_000),),
    "cifar100": (Revision("test", {"": 10_000}, pictures=10_000),),
    "mnist": (Revision("test", {"": 10_000}, pictures=10_000),),
    "text_vqa": (Revision("val", {"": 5000}, pictures=3166),),
}
"""The revisions of every set, the one to compare an unknown count with first."""


@dataclass(frozen=True)
class Verdict:
    """What counting says about a set.

    Attributes:
        agrees: Whether the counts are those of an official revision.
        expected: Questions of the revision it was compared with; 0 for a set that is not known.
        note: The revision's name, or what differs.
        is_older: Whether the counts are those of a known revision that is not the official one.
    """

    agrees: bool
    expected: int
    note: str
    is_older: bool = False


def other_revision(name: str, counts: Mapping[str, int]) -> str:
    """Returns which split or revision of a set has so many questions, if it is another than the published scores' own.

    Args:
        name: Name of the set.
        counts: Its questions by subtask.

    Returns:
        The revision's name; empty for the published one and for counts that no revision has.
    """
    return next(
        (other.name for other in REVISIONS.get(name, ())[1:] if Counter(other.questions) == Counter(counts)), ""
    )


def published_size(name: str) -> int:
    """Returns how many questions the published scores of a set are over; 0 for a set that is not known."""
    return REVISIONS[name][0].total if name in REVISIONS else 0


def verdict_on(
    name: str, questions: "Sequence[Question]", pictures: int, declared: "Sequence[Revision]" = ()
) -> Verdict:
    """Returns which revision of a set has as many questions and pictures, or what differs from the official one.

    Args:
        name: Name of the set.
        questions: All its questions.
        pictures: Number of its pictures.
        declared: The revisions that the set's own class knows; none: those of ``REVISIONS``.
    """
    revisions = declared or REVISIONS.get(name, ())
    if not revisions:
        return Verdict(False, 0, "no size is known")
    counts = Counter(question.subtask for question in questions)
    for revision in revisions:
        if counts == Counter(revision.questions):
            if pictures != (revision.pictures or pictures):
                return Verdict(False, revision.total, f"{revision.name}, but that has {revision.pictures:,} pictures")
            return Verdict(revision.is_official, revision.total, revision.name, is_older=not revision.is_official)
    official = revisions[0]
    fewer = [
        f"{subtask or official.name} {counts[subtask]:,} of {count:,}"
        for subtask, count in official.questions.items()
        if counts[subtask] < count
    ]
    if counts - Counter(official.questions):
        return Verdict(False, official.total, "no known revision")
    more = f" and {len(fewer) - MOST_NAMED} more" if len(fewer) > MOST_NAMED else ""
    return Verdict(False, official.total, f"incomplete: {', '.join(fewer[:MOST_NAMED])}{more}")


def number_of_pictures(questions: "Sequence[Question]", questions_per_group: int) -> int:
    """Returns how many pictures questions are about.

    Args:
        questions: All questions of a set.
        questions_per_group: Questions that are scored together. Where a picture has its own questions (MME), the same
            name in another subtask is another picture; elsewhere (POPE) it is the same.
    """
    if questions_per_group > 1:
        return len({(question.subtask, question.image_id) for question in questions})
    return len({question.image_id for question in questions})
