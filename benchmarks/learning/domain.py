"""How much work a stage-2 domain leaves: aligned model and full tuning on the validation split of the tuned types.

    python -m benchmarks.learning.domain --attempt vicuna_v1 --template vicuna_v1

The share is (aligned - chance) / (fully tuned - chance), chance being the best constant answer of every type. Full
tuning is also run on the vision tower alone and on the language model alone: there is work for both sides where both
gain and neither reaches what they reach together. These are the only figures the testbed's domain is chosen by: no
held-out set is read and no other method is run. Every attempt is added to ``benchmarks/results/domain.json``.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.prepare import check_experiment
from experiments.runs.training import tuning_data
from lightning_m2pt.tuning.losses import supervised_rows

LOG = logging.getLogger("domain")
RESULTS = Path("benchmarks/results/domain.json")
OUTPUTS = Path("outputs/domain")
FULL = "experiments/full.yaml"
EVERYTHING = "everything"
SIDES = {
    EVERYTHING: (),
    "vision alone": ("--model.method.interaction=false", "--model.method.language=false"),
    "language alone": ("--model.method.interaction=false", "--model.method.vision=false"),
}
"""What is tuned, and the words that say so."""


def loaded(experiment: Experiment, run: Path | None) -> Experiment:
    """Returns the experiment with its weights, a run's adapter included."""
    check_experiment(experiment)
    if run is None:
        experiment.model.configure_model()
    else:
        load_run(run, experiment)
    experiment.model.eval()
    return experiment


@torch.no_grad()
def right_answers(experiment: Experiment) -> dict[str, list[bool]]:
    """Returns by type whether every token of each validation answer is right."""
    data, model = tuning_data(experiment), experiment.model
    data.setup("validate")
    right: dict[str, list[bool]] = defaultdict(list)
    (loader,) = data.val_dataloader()
    for batch in loader:
        rows = supervised_rows(model.backbone, batch)
        wrong = torch.zeros(len(batch)).index_add(0, rows.sample, (~rows.right).float())
        for tasks, errors in zip(batch.tasks, wrong.tolist(), strict=True):
            right[tasks[0]].append(errors == 0)
    return right


def chances(experiment: Experiment) -> dict[str, float]:
    """Returns by type the share of validation questions that its most frequent answer is right for."""
    answers: dict[str, list[str]] = defaultdict(list)
    for sample in tuning_data(experiment).read_once()[1]:
        answers[sample.tasks[0]].append(sample.turns[0].answer)
    return {task: Counter(given).most_common(1)[0][1] / len(given) for task, given in answers.items()}


def share_done(aligned: float, tuned: float, chance: float) -> float:
    """Returns how much of what full tuning reaches above chance the aligned model has already."""
    return (aligned - chance) / (tuned - chance)


def accuracy(right: Mapping[str, Sequence[bool]]) -> float:
    """Returns the share of right answers over all questions."""
    return sum(map(sum, right.values())) / sum(map(len, right.values()))


def summarise(
    chance: Mapping[str, float],
    aligned: Mapping[str, Sequence[bool]],
    tuned: Mapping[str, Mapping[str, Sequence[bool]]],
) -> dict[str, object]:
    """Returns figures over all questions and by type.

    Args:
        chance: The best constant answer's share by type.
        aligned: Right answers of the aligned model by type.
        tuned: The same for every key of ``SIDES`` that was tuned.
    """
    questions = sum(map(len, aligned.values()))
    overall_chance = sum(chance[task] * len(given) for task, given in aligned.items()) / questions
    by_type = {
        task: {
            "n": len(given),
            "chance": round(chance[task], 4),
            "aligned": round(sum(given) / len(given), 4),
            **{side: round(sum(right[task]) / len(given), 4) for side, right in tuned.items()},
        }
        for task, given in sorted(aligned.items())
    }
    return {
        "questions": questions,
        "chance": round(overall_chance, 4),
        "aligned": round(accuracy(aligned), 4),
        **{side: round(accuracy(right), 4) for side, right in tuned.items()},
        "share": round(share_done(accuracy(aligned), accuracy(tuned[EVERYTHING]), overall_chance), 4),
        "by_type": by_type,
    }


def tune(words: Sequence[str], run: Path) -> None:
    """Tunes in a process of its own with one thread, as ``make train`` does; a finished run is found again."""
    command = [sys.executable, "-m", "lightning_m2pt.main", "fit", *words, "--run", str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def measure(attempt: str, words: Sequence[str]) -> dict[str, object]:
    """Measures the aligned model, then tunes everything and each side, two at a time, and measures each."""
    experiment = loaded(parse_experiment(words), None)
    chance, aligned = chances(experiment), right_answers(experiment)
    LOG.info("aligned: %.4f", accuracy(aligned))
    runs = {side: OUTPUTS / f"{attempt}-{side.replace(' ', '-')}" for side in SIDES}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda side: tune([*words, *SIDES[side]], runs[side]), SIDES))
    tuned = {side: right_answers(loaded(experiment_of_run(run), run)) for side, run in runs.items()}
    return summarise(chance, aligned, tuned)


def main() -> None:
    """Measures one domain and adds it to the table of attempts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempt", required=True, help="name of the attempt")
    parser.add_argument("--template", required=True)
    parser.add_argument("--words", nargs="*", default=[], help="further words of the command line, without dashes")
    own = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    started = time.monotonic()
    words = ["--config", FULL, *(f"--{word}" for word in own.words), f"--data.template={own.template}"]
    result = measure(own.attempt, words)
    LOG.info("%s", {name: value for name, value in result.items() if name != "by_type"})
    attempts = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    attempts[own.attempt] = {"words": words, "minutes": round((time.monotonic() - started) / 60, 1), **result}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(attempts, indent=1) + "\n")


if __name__ == "__main__":
    main()
