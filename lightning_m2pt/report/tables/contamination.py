"""Which tuning tasks share pictures or labels with which evaluation set: what stands below every zero-shot number.

Sources: the task names of Vision-Flan's 191 tasks, and what each source set says of its own pictures: MNIST-M is made
of MNIST's digits (Ganin et al., 2016); CINIC-10 of CIFAR-10, test pictures included, and ImageNet (Darlow et al.,
2018); STL-10 has CIFAR-10's classes but one, on ImageNet's pictures (Coates et al., 2011); Localized Narratives are
about COCO, Flickr30k, ADE20k and Open Images (Pont-Tuset et al., 2020); TextCaps is about TextVQA's pictures (Sidorov
et al., 2020).
Nothing was compared picture by picture, and a task that is not listed is not proven clean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from lightning_m2pt.metrics.predictions import SHARED_WITH_TASKS
from lightning_m2pt.runs.evaluated import ORDER_OF_SETS
from lightning_m2pt.visible_text import counted

TASKS = "tasks"
"""Section of run.json: the names of the tasks a run was tuned on."""
TESTBED_TASKS = "testbed+*"
COCO_SETS = ("pope", "vsr", "mme")


@dataclass(frozen=True)
class Overlap:
    """Tasks that share something with evaluation sets.

    Attributes:
        tasks: Patterns of task names.
        sets: The evaluation sets.
        reason: What is shared.
    """

    tasks: tuple[str, ...]
    sets: tuple[str, ...]
    reason: str


OVERLAPS = (
    Overlap(("MNIST-M+*",), ("mnist",), "MNIST's digits on photographs: pictures of the same writing, and all labels"),
    Overlap(("cinic-10+*",), ("cifar10",), "made of CIFAR-10, test pictures too, and ImageNet: pictures and labels"),
    Overlap(("STL-10+*",), ("cifar10",), "nine of CIFAR-10's ten labels, on other pictures"),
    Overlap(("FLICKR30K+*", "LOC_NARRATIVES+flickr30k*"), ("snli_ve",), "Flickr30k: SNLI-VE's pictures"),
    Overlap(
        (
            *("coco+*", "LOC_NARRATIVES+coco*", "VQA", "VQAv2", "VQA_*", "VQA-E+*", "VQG+*", "ok_vqa", "A-OKVQA+*"),
            *("visdial+*", "SentiCap+*", "ITM"),
        ),
        COCO_SETS,
        "COCO pictures, which may recur",
    ),
    Overlap(("GQA", "visualgenome_vqa"), COCO_SETS, "Visual Genome, half of it COCO pictures, which may recur"),
    Overlap(("textcaps+*",), ("text_vqa",), "captions of TextVQA's own pictures, which may recur"),
    Overlap(("LOC_NARRATIVES+open_images*", "NOCAPS+*"), ("text_vqa",), "Open Images pictures, which may recur"),
)


def overlaps_with(
    benchmark: str, tasks: Sequence[str], header: Mapping[str, Any] = MappingProxyType({})
) -> list[tuple[str, list[str]]]:
    """Returns what an evaluation set shares with tuning tasks: the reason, and the tasks it holds for.

    Args:
        benchmark: Name of the evaluation set.
        tasks: Names of the tuning tasks.
        header: Of its prediction file, in which a set of somebody's own says what it shares.
    """
    found, said = [], header.get(SHARED_WITH_TASKS, {}).items()
    for overlap in (*OVERLAPS, *(Overlap((pattern,), (benchmark,), str(reason)) for pattern, reason in said)):
        named = [task for task in tasks if any(fnmatchcase(task, pattern) for pattern in overlap.tasks)]
        if benchmark in overlap.sets and named:
            found.append((overlap.reason, named))
    return found


def recorded_tasks(record: Mapping[str, Any]) -> list[str] | None:
    """Returns the tasks that a run's record says it was tuned on, or None if it does not say."""
    tasks = record.get(TASKS)
    return tasks if isinstance(tasks, list) and all(isinstance(task, str) for task in tasks) else None


def contamination_notes(
    runs: str,
    tasks: Sequence[str] | None,
    benchmarks: Sequence[str],
    shots: int = 0,
    headers: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[str]:
    """Returns the sentences that belong below the scores of runs that were tuned on the same tasks.

    Args:
        runs: What the runs are called.
        tasks: What they were tuned on; None if that is not recorded.
        benchmarks: The sets in the table.
        shots: How many worked examples of a set's own training split stood before its questions.
        headers: The sets' prediction files' headers, by name.
    """
    kind = f"{shots}-shot" if shots else "zero-shot"
    if tasks is None:
        return [f"{kind}? {runs}: run.json names no tuning tasks, so what they share with these sets cannot be told"]
    if tasks and all(fnmatchcase(task, TESTBED_TASKS) for task in tasks):
        known = [benchmark for benchmark in benchmarks if benchmark in ORDER_OF_SETS]
        others = [benchmark for benchmark in benchmarks if benchmark not in ORDER_OF_SETS]
        pictures = f"pictures of {', '.join(known)}" if others else "evaluation pictures"
        notes = [
            f"{kind}: {runs}: tuned on synthetic tasks of the testbed ({len(tasks)}); {pictures} come from "
            "other random streams and other digit scans, and their question types are not tuned (docs/testbed.md)"
        ]
        return [*(notes if known or not others else []), *notes_by_set(kind, runs, tasks, others, headers)]
    return notes_by_set(kind, runs, tasks, benchmarks, headers)


def notes_by_set(
    kind: str, runs: str, tasks: Sequence[str], benchmarks: Sequence[str], headers: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Returns what each set shares with the tasks, and which sets are not known to share anything.

    Args:
        kind: What the scores are called, such as ``zero-shot``.
        runs: What the runs are called.
        tasks: What they were tuned on.
        benchmarks: The sets.
        headers: The sets' prediction files' headers, by name.
    """
    notes, clean = [], []
    for benchmark in benchmarks:
        shared = overlaps_with(benchmark, tasks, headers.get(benchmark, {}))
        if shared:
            reasons = "; ".join(f"{counted(named)}: {reason}" for reason, named in shared)
            notes.append(f"not {kind} without reserve: {runs}: {benchmark} shares with the tuning set: {reasons}")
        else:
            clean.append(benchmark)
    if clean:
        notes.append(
            f"{kind}: {runs}: none of the {len(tasks)} tuning tasks is known to share pictures or labels with "
            f"{', '.join(clean)}"
        )
    return notes
