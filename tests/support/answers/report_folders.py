"""Invented outputs of a whole comparison, as sweeps leave them: methods, ablations, lengths, searches, metrics."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.storage.run_record import short_hash
from tests.support.answers.evaluated_folders import (
    Rows,
    mme_questions,
    mnist_questions,
    pope_questions,
    vsr_questions,
    write_predictions,
)

BACKBONE = "c" * 64
LENGTHS = {"visual_length": 10, "textual_length": 10, "interaction": True}
SETS: dict[str, Rows] = {
    "mme": mme_questions({"count": 20, "color": 20}),
    "vsr": vsr_questions(200),
    "pope": pope_questions(20),
    "mnist": mnist_questions(200),
}


def toggles(method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the switches of M2PT's prediction files; of another method its name alone."""
    if method != "m2pt":
        return {"method": method}
    return {
        "method": method,
        "visual_prompts": arguments["visual_length"] > 0,
        "textual_prompts": arguments["textual_length"] > 0,
        "interaction": arguments["interaction"],
        "lm_head": False,
    }


def write_tuned(
    outputs: Path, experiment: str, method: str, seed: int, right: float, arguments: dict[str, Any], **sets: Rows
) -> Path:
    """Writes one tuned run with its record, configuration, predictions and metrics."""
    name = f"{method}-seed{seed}-{short_hash([experiment, arguments, seed])}"
    folder = outputs / experiment / name
    folder.mkdir(parents=True)
    record = {
        "deciding": {
            "method": {"class_path": method, "init_args": arguments},
            "backbone": BACKBONE,
            "optimizer": {"learning_rate": {"interaction": 0.001}},
            "seed": seed,
        },
        "made_with": [{"git_commit": "d" * 40, "started": "2026-01-02T03:04:05+00:00", "instruction_set": "AVX2"}],
        "tasks": ["testbed+color"],
        "trainable": {"percent": 1.5, "trained": 33728, "base": 2232256},
        "completed": {"optimizer_steps": 40, "seconds": 60.0 * (seed + 1)},
    }
    (folder / "run.json").write_text(json.dumps(record))
    benchmarks = [
        {"class_path": f"data_modules.{name}.Set", "init_args": {"root": f"data/{name}", "template": "plain"}}
        for name in sets or SETS
    ]
    files = {key: f"backbones/small/{key}" for key in ("vision_config", "language_model")}
    config = {"model": {"backbone": {"class_path": "a.Backbone", "init_args": files}}, "benchmarks": benchmarks}
    (folder / "config.yaml").write_text(json.dumps(config))
    for benchmark, questions in (sets or SETS).items():
        shown = toggles(method, arguments)
        write_predictions(folder, benchmark, questions, right, 10 * seed + sum(experiment.encode()), toggles=shown)
    lines = ["step,train/loss,val/loss,val/answer_accuracy"]
    for step in range(1, 41):
        value = f"{2.0 / step + 0.1 * seed + 0.1},,"
        lines.append(f"{step},{value}" if step != 20 else f"{step},{value[:-2]},0.5,{right}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_frozen(outputs: Path, right: float = 0.55, sets: dict[str, Rows] | None = None) -> Path:
    """Writes the untouched model's answers under the name that its backbone and questions give."""
    draft = outputs / "frozen" / "draft"
    found = sets or SETS
    for benchmark, questions in found.items():
        write_predictions(draft, benchmark, questions, right, 3, adapter=None, toggles={"method": "frozen"})
    headers = [json.loads((draft / f"predictions/{name}.jsonl").read_text().splitlines()[0]) for name in found]
    return draft.rename(draft.parent / short_hash({"backbone": BACKBONE, "questions": headers}))


def write_sweep(outputs: Path, name: str, runs: dict[str, Sequence[Path]], search: bool = False) -> None:
    """Writes a sweep's table, and perhaps its search."""
    folder = outputs / "sweeps" / name
    folder.mkdir(parents=True)
    rows = [{"label": label, "runs": [str(run) for run in of_label]} for label, of_label in runs.items()]
    (folder / "table.json").write_text(json.dumps({"format": 1, "rows": rows}))
    if search:
        variants = {
            label: {
                "steps": 100,
                "stated": {"interaction": 0.001},
                "chosen": number % 2,
                "trials": [
                    {"number": 0, "rates": {"interaction": 0.001}, "val/answer_accuracy": 0.5 + 0.01 * number},
                    {"number": 1, "rates": {"interaction": 0.004}, "val/answer_accuracy": 0.6},
                ],
            }
            for number, label in enumerate(runs)
        }
        content = {"format": 1, "decides": "val/answer_accuracy", "variants": variants}
        (folder / "search.json").write_text(json.dumps(content))


def write_everything(root: Path, others: Sequence[str] = ("lora", "full")) -> Path:
    """Writes a comparison, an ablation and a grid of lengths with one cell missing; returns the outputs' folder."""
    outputs = root / "outputs"
    labelled: dict[str, list[Path]] = {"m2pt": []}
    for seed in range(3):
        labelled["m2pt"].append(write_tuned(outputs, "m2pt_base", "m2pt", seed, 0.8, LENGTHS))
        for number, method in enumerate(others):
            run = write_tuned(outputs, f"{method}_base", method, seed, 0.62 + 0.03 * number, {"rank": 8})
            labelled.setdefault(method, []).append(run)
    for key, value in (("visual_length", 0), ("textual_length", 0), ("interaction", False)):
        for seed in range(2):
            write_tuned(outputs, "m2pt_base", "m2pt", seed, 0.7 - 0.05 * len(key) / 11, {**LENGTHS, key: value})
    for textual in (5, 20):
        for visual in (0, 5, 10, 20):
            if (textual, visual) != (20, 0):
                lengths = {"textual_length": textual, "visual_length": visual, "interaction": True}
                write_tuned(outputs, "m2pt_base", "m2pt", 0, 0.6 + 0.004 * (textual + visual), lengths)
    write_frozen(outputs)
    write_sweep(outputs, "comparison", labelled, search=True)
    return outputs
