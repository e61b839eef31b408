"""Invented folders of evaluated runs, as `m2pt evaluate` leaves them: predictions, record and configuration."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

OTHER = {"yes": "no", "no": "yes", "Yes": "No", "No": "Yes"}
RULES = {"mme": "mme_official", "pope": "pope_official", "vsr": "yes_no_words", "mnist": "closed_set"}
DIGITS = [str(digit) for digit in range(10)]
Rows = list[dict[str, str]]


def question(name: str, target: str, subtask: str = "", image_id: str = "") -> dict[str, str]:
    return {"id": name, "subtask": subtask, "question": f"{name}?", "target": target, "image_id": image_id or name}


def mme_questions(pictures: Mapping[str, int]) -> Rows:
    """Returns so many pictures' pairs of questions a subtask."""
    return [
        question(f"{subtask}/{number}/{target}", target, subtask, f"{number}.png")
        for subtask, several in pictures.items()
        for number in range(several)
        for target in ("Yes", "No")
    ]


def pope_questions(pictures: int) -> Rows:
    return [
        question(f"{split}/{number}", ("yes", "no")[number % 2], split, f"{number // 2}.png")
        for split in ("random", "popular", "adversarial")
        for number in range(2 * pictures)
    ]


def vsr_questions(several: int) -> Rows:
    return [question(f"vsr/{number}", ("yes", "no")[number % 2]) for number in range(several)]


def mnist_questions(several: int) -> Rows:
    return [question(f"mnist/{number}", DIGITS[number % 10]) for number in range(several)]


def write_predictions(
    folder: Path, benchmark: str, questions: Rows, right: float, seed: int = 0, **header: Any
) -> None:
    """Writes answers of which about a share is right; the seed decides which."""
    generator = numpy.random.default_rng([seed, len(benchmark)])
    head = {
        "format": 1,
        "benchmark": benchmark,
        "template": "vicuna_v1",
        "decoding": {"method": "greedy", "max_new_tokens": 8, "dtype": "float32"},
        "data_revision": "a" * 64,
        "adapter": "b" * 64,
        "default_rule": RULES.get(benchmark, "yes_no_words"),
        "toggles": {"method": "m2pt"},
        "classes": DIGITS if benchmark == "mnist" else [],
        **header,
    }
    lines = [head]
    for row in questions:
        wrong = OTHER.get(row["target"]) or DIGITS[(int(row["target"]) + 1) % 10]
        answer = row["target"] if generator.random() < right else wrong
        lines.append({**row, "set": benchmark, "answer": answer})
    path = folder / "predictions" / f"{benchmark}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_run(folder: Path, seed: int, tasks: Sequence[str] | None = None, **config: Any) -> None:
    """Writes a tuned run's record and configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"deciding": {"seed": seed, "method": "m2pt"}, "trainable": {"percent": 0.0851}}
    if tasks is not None:
        record["tasks"] = list(tasks)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text(json.dumps(config))


def write_outputs(root: Path) -> Path:
    """Writes three seeds of an experiment, another experiment and the untouched model; returns the outputs' folder."""
    sets = {"mme": mme_questions({"count": 20, "color": 20}), "vsr": vsr_questions(200), "pope": pope_questions(20)}
    sets["mnist"] = mnist_questions(200)
    outputs = root / "outputs"
    for seed in range(3):
        folder = outputs / "m2pt_base" / f"m2pt-seed{seed}"
        write_run(folder, seed, ["testbed+color", "testbed+count"])
        for benchmark, questions in sets.items():
            write_predictions(folder, benchmark, questions, 0.85, seed + 1)
    write_run(outputs / "projector" / "projector-seed0", 0, ["testbed+color"])
    for benchmark, questions in sets.items():
        write_predictions(outputs / "projector" / "projector-seed0", benchmark, questions, 0.6, 7)
        write_predictions(outputs / "frozen" / "0123abcd", benchmark, questions, 0.58, 8, adapter=None)
    return outputs
