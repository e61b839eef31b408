"""Keeps what answers of the real pair look at and which words its textual prompts are near.

    m2pt prompts --run RUN
    m2pt attention --run RUN --sample vsr pope cifar10 mnist
    python -m benchmarks.learning.pair_looks "m2pt=RUN" "m2pt from words=RUN"     # benchmarks/results/pair_looks.json

Read are the files that the two commands write into a run's ``figures``. Attention is that of the row which chose an
answer's first token: the share that rows of each kind get, and the first row of all, mean over heads, layers and
questions. It is the same for the untouched model beside.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors import safe_open

from benchmarks.report.sweep_tables import LEAD
from lightning_m2pt.storage.run_record import read_run_record
from lightning_m2pt.system.atomic_files import write_atomically

RESULTS = Path("benchmarks/results/pair_looks.json")
SIDES = ("tuned", "frozen")
FIRST_ROW = "first row"
DIGITS = 4


def shares_of_question(path: Path, side: str) -> dict[str, float]:
    """Returns the attention that an answer's first token was chosen with, by kind of row, mean over heads and layers.

    Args:
        path: A question's JSON file of ``m2pt attention``; its arrays lie beside it.
        side: ``tuned`` or ``frozen``.
    """
    told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["sides"][side]
    row, total = min(map(int, told["predicts"])), Counter[str]()
    with safe_open(path.with_suffix(".safetensors"), "pt") as arrays:
        for layer, about in told["language"].items():
            shares = arrays.get_tensor(f"{side}.language.{layer}")[:, row].double().mean(dim=0).tolist()
            total[FIRST_ROW] += shares[0]
            for span, share in zip(about["spans"], shares, strict=True):
                total[span] += share
    return {name: value / len(told["language"]) for name, value in total.items()}


def shares_of_run(folder: Path, side: str) -> dict[str, float]:
    """Returns the mean of its questions' shares; a kind of row that a question lacks has none there."""
    questions = [shares_of_question(path, side) for path in sorted(folder.glob("*.json"))]
    names = sorted({name for each in questions for name in each})
    return {name: round(fmean(each.get(name, 0.0) for each in questions), DIGITS) for name in names}


def words_of_run(path: Path) -> dict[str, Any]:
    """Returns the words nearest to the first layer's rows, and how many rows of the others are nearer than by chance.

    Of random rows 5% are.

    Args:
        path: ``prompts.json`` of ``m2pt prompts``.
    """
    found = json.loads(path.read_text(encoding="utf-8"))["textual_prompts"]
    first, *others = (found["nearest_words"][str(layer)] for layer in found["layers"])
    cosines = [words[0][1] for rows in others for words in rows]
    return {
        "first_layer": [[words[0][0].strip(), round(words[0][1], DIGITS)] for words in first],
        "others_above_chance": round(fmean(cosine > found["chance_of_nearest"] for cosine in cosines), DIGITS),
        "chance": round(found["chance_of_nearest"], DIGITS),
    }


def looks_of(run: Path) -> dict[str, Any]:
    """Returns all that is kept of a run."""
    attention = run / "figures" / "attention"
    deciding = read_run_record(run)["deciding"]
    return {
        "run": run.name,
        "seed": deciding["seed"],
        "steps": deciding["trainer"]["max_steps"],
        "pictures_a_step": deciding["data"]["init_args"]["batch_size"],
        "questions": len(list(attention.glob("*.json"))),
        "attention": {side: shares_of_run(attention, side) for side in SIDES},
        "words": words_of_run(run / "figures" / "prompts" / "prompts.json"),
    }


def main() -> None:
    """Reads the runs and stores what they look at."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    named = dict(each.split("=", 1) for each in parser.parse_args().runs if "=" in each)
    if LEAD not in named:
        parser.error(f"a run called {LEAD} is needed, which shows the untouched model: {LEAD}=RUN")
    content = {label: looks_of(Path(run)) for label, run in named.items()}
    write_atomically(RESULTS, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
