"""Invented prediction files of whole sets, with answers of every kind."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.metrics.mme import SUBTASKS
from lightning_m2pt.metrics.predictions import PredictionFile

CLEAN = ("Yes", "No", "yes", "no", "Yes.", "No.", "Yes, it is", "No, it is not")
MESSY = (*CLEAN, "", "  Yes", "No\nBecause", "No\rthere", "yes\tno", "N", "\nyes", "There is no dog.", "not", "**Yes**")
RULE_OF = {"mme": "mme_official", "pope": "pope_official", "vsr": "yes_no_words", "mnist": "closed_set"}


def header_of(benchmark: str, classes: Sequence[str] = ()) -> dict[str, object]:
    return {
        "format": 1,
        "benchmark": benchmark,
        "template": "plain",
        "decoding": {"method": "greedy", "max_new_tokens": 4, "dtype": "float32"},
        "data_revision": "0" * 64,
        "adapter": None,
        "default_rule": RULE_OF[benchmark],
        "toggles": {},
        "classes": list(classes),
    }


def row_of(benchmark: str, name: str, subtask: str, question: str, answer: str, target: str, image: str) -> dict:
    texts = {"id": name, "set": benchmark, "subtask": subtask, "question": question, "answer": answer}
    return {**texts, "target": target, "image_id": image}


def mme_predictions(answers: Sequence[str], seed: int = 0, images: int = 6) -> PredictionFile:
    """All fourteen subtasks; the same picture names recur in each of them."""
    chance = random.Random(seed)
    rows = [
        row_of(
            "mme",
            f"{subtask}/{image}.jpg/{number}",
            subtask,
            f"Is {number} in picture {image}? Please answer yes or no.",
            chance.choice(answers),
            target,
            f"{image}.jpg",
        )
        for subtask in SUBTASKS
        for image in range(images)
        for number, target in enumerate(("Yes", "No"), start=1)
    ]
    return PredictionFile(header_of("mme"), rows)


def pope_predictions(answers: Sequence[str], seed: int = 0, questions: int = 40) -> PredictionFile:
    """All three splits, yes and no in turn; ids restart in each of them."""
    chance = random.Random(seed)
    rows = [
        row_of(
            "pope",
            f"{split}/{number + 1}",
            split,
            f"Is there a thing {number} in the image?",
            chance.choice(answers),
            ("yes", "no")[number % 2],
            f"COCO_{number // 6}.jpg",
        )
        for split in ("random", "popular", "adversarial")
        for number in range(questions)
    ]
    return PredictionFile(header_of("pope"), rows)


def vsr_predictions(answers: Sequence[str], seed: int = 0, questions: int = 60) -> PredictionFile:
    chance = random.Random(seed)
    rows = [
        row_of("vsr", f"test/{number}", "", f'Is "{number}" true?', chance.choice(answers), target, f"{number}.jpg")
        for number in range(questions)
        for target in [chance.choice(("yes", "no"))]
    ]
    return PredictionFile(header_of("vsr"), rows)


def mnist_predictions() -> PredictionFile:
    rows = [row_of("mnist", f"test/{n}", "", "Which digit?", str(n), str(n), str(n)) for n in range(10)]
    return PredictionFile(header_of("mnist", [str(n) for n in range(10)]), rows)


def written(content: PredictionFile, path: Path) -> Path:
    """Writes the file; ``json`` escapes what UTF-8 cannot hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in [content.header, *content.predictions]))
    return path
