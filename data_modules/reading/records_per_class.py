"""K-shot tuning: so many records of every class, chosen by a seed, as CoOp and RLPrompt take 16 of each.

Whether a record is chosen hangs on the seed and on the ids of its class alone: other classes change nothing, and with
the same seed the records of a smaller K are among those of a larger one.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import refuse
from lightning_m2pt.inputs.samples import Sample

PerClassOf: TypeAlias = Literal["answer", "task"]


def check_per_class(per_class: int | None, per_class_of: PerClassOf, per_class_seed: int) -> None:
    """Looks at the settings.

    Raises:
        BadInputError: If K is less than 1, or something says how K records are chosen and nothing says K.
    """
    if per_class is not None and per_class < 1:
        raise BadInputError(f"{per_class} records of each class", where="data.per_class", expected="1 or more, or null")
    for key, value, default in (("per_class_of", per_class_of, "answer"), ("per_class_seed", per_class_seed, 0)):
        if per_class is None and value != default:
            raise BadInputError(
                f"{value} says how some records of each class are chosen, and all are taken",
                where=f"data.{key}",
                expected="data.per_class, or no such key",
            )


def chosen_of_each_class(
    samples: Sequence[Sample], per_class: int, of: PerClassOf, seed: int, where: str
) -> tuple[list[Sample], str]:
    """Returns so many samples of every class, in their order, and a line that says how many of what.

    Args:
        samples: The training part.
        per_class: How many of each.
        of: What a class is: an answer of a task, or a task.
        seed: Decides which.
        where: The set, for errors.

    Raises:
        BadInputError: If a class has fewer, or an answer is none of one question.
    """
    classes: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        classes.setdefault(class_of(sample, of), []).append(sample)
    fewest = min(classes, key=lambda each: len(classes[each]), default=None)
    if fewest is not None and len(classes[fewest]) < per_class:
        short = sum(len(members) < per_class for members in classes.values())
        hint = "per_class_of: task takes them of each task" if of == "answer" else ""
        refuse(
            [
                BadInputError(
                    f"{short:,} of {len(classes):,} classes have fewer than {per_class} records: the smallest, "
                    f"{called(fewest, of)}, has {len(classes[fewest])}",
                    where=f"data.per_class: {where}",
                    expected=f"at most {len(classes[fewest])}",
                    hint=hint,
                )
            ]
        )
    chosen = {each.id for members in classes.values() for each in drawn(members, per_class, seed)}
    kept = [sample for sample in samples if sample.id in chosen]
    return kept, f"{per_class} records of each {of}, seed {seed}: {len(kept):,} of {len(samples):,} are trained on"


def class_of(sample: Sample, of: PerClassOf) -> tuple[str, str]:
    """Returns a sample's task, and its answer where that is what makes a class.

    Raises:
        BadInputError: If it has several answers.
    """
    task = sample.tasks[0] if sample.tasks else ""
    if of == "task":
        return task, ""
    if len(sample.turns) > 1:
        raise BadInputError(
            f"{sample.id!r:.160} has {len(sample.turns)} answers, and a class is one",
            where=sample.source,
            expected="data.per_class_of: task, or records of one question",
        )
    return task, sample.turns[0].answer


def called(one: tuple[str, str], of: PerClassOf) -> str:
    """Returns a class in words."""
    task, answer = one
    return f"{answer!r:.60} of {task:.60}" if of == "answer" else f"{task:.60}"


def drawn(members: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Returns some samples of one class: those whose ids, with the seed, have the lowest hashes."""
    return sorted(members, key=lambda sample: hashlib.sha256(f"{seed}/{sample.id}".encode()).digest())[:count]
