"""How much work a stage-2 domain leaves: aligned model and full tuning on the validation split of the tuned types.

    python -m benchmarks.domain --attempt vicuna_v1 --template vicuna_v1

The share is (aligned - chance) / (fully tuned - chance), chance being the best constant answer of every type. It is the
only figure the testbed's domain is chosen by: no held-out set is read and no other method is run. Every attempt is
added to ``benchmarks/results/domain.json``.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from data_modules.instruction import InstructionDataModule
from experiments.cli import Experiment, parse_experiment
from experiments.loading import experiment_of_run, load_run
from experiments.prepare import check_experiment
from lightning_m2pt.losses import supervised_rows

LOG = logging.getLogger("domain")
RESULTS = Path("benchmarks/results/domain.json")
OUTPUTS = Path("outputs/domain")
FULL = "experiments/full.yaml"
LARGEST_SHARE = 0.6
"""What the domain must not exceed."""


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
    data, model = experiment.data, experiment.model
    if not isinstance(data, InstructionDataModule):
        raise TypeError("a domain is judged on a tuning set's validation split")
    data.setup("validate")
    right: dict[str, list[bool]] = defaultdict(list)
    (loader,) = data.val_dataloader()
    for batch in loader:
        rows = supervised_rows(model.backbone, model.backbone(batch))
        wrong = torch.zeros(len(batch)).index_add(0, rows.sample, (~rows.right).float())
        for tasks, errors in zip(batch.tasks, wrong.tolist(), strict=True):
            right[tasks[0]].append(errors == 0)
    return right


def chances(experiment: Experiment) -> dict[str, float]:
    """Returns by type the share of validation questions that its most frequent answer is right for."""
    if not isinstance(experiment.data, InstructionDataModule):
        raise TypeError("a domain is judged on a tuning set's validation split")
    answers: dict[str, list[str]] = defaultdict(list)
    for sample in experiment.data.read_once()[1]:
        answers[sample.tasks[0]].append(sample.turns[0].answer)
    return {task: Counter(given).most_common(1)[0][1] / len(given) for task, given in answers.items()}


def share_done(aligned: float, tuned: float, chance: float) -> float:
    """Returns how much of what full tuning reaches above chance the aligned model has already."""
    return (aligned - chance) / (tuned - chance)


def summarise(
    chance: Mapping[str, float], aligned: Mapping[str, Sequence[bool]], tuned: Mapping[str, Sequence[bool]]
) -> dict[str, object]:
    """Returns figures by type and over all questions."""
    questions = sum(map(len, aligned.values()))
    overall = {
        "chance": sum(chance[task] * len(given) for task, given in aligned.items()) / questions,
        "aligned": sum(map(sum, aligned.values())) / questions,
        "tuned": sum(map(sum, tuned.values())) / questions,
    }
    by_type = {
        task: {
            "n": len(given),
            "chance": round(chance[task], 4),
            "aligned": round(sum(given) / len(given), 4),
            "tuned": round(sum(tuned[task]) / len(tuned[task]), 4),
        }
        for task, given in sorted(aligned.items())
    }
    share = share_done(overall["aligned"], overall["tuned"], overall["chance"])
    rounded = {name: round(value, 4) for name, value in overall.items()}
    return {"questions": questions, **rounded, "share": round(share, 4), "by_type": by_type}


def tune(config: str, words: Sequence[str], run: Path) -> None:
    """Tunes everything in a process of its own; a finished run is found again."""
    command = [sys.executable, "-m", "experiments.main", "fit", "--config", config, *words, "--run", str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measures one domain and adds it to the table of attempts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempt", required=True, help="name of the attempt")
    parser.add_argument("--template", required=True)
    parser.add_argument("--words", nargs="*", default=[], help="further KEY=VALUE words of the command line")
    own = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    started = time.monotonic()
    words = [f"--data.template={own.template}", *(f"--{word}" for word in own.words)]
    run = OUTPUTS / own.attempt
    frozen = loaded(parse_experiment(["--config", FULL, *words]), None)
    chance, aligned = chances(frozen), right_answers(frozen)
    LOG.info("aligned: %.4f", sum(map(sum, aligned.values())) / sum(map(len, aligned.values())))
    tune(FULL, words, run)
    result = summarise(chance, aligned, right_answers(loaded(experiment_of_run(run), run)))
    LOG.info("%s", {name: value for name, value in result.items() if name != "by_type"})
    attempts = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    attempts[own.attempt] = {"words": words, "minutes": round((time.monotonic() - started) / 60, 1), **result}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(attempts, indent=1) + "\n")


if __name__ == "__main__":
    main()
