"""Questions a second of three ways to answer an evaluation set, and whether their answers are the same strings.

    python -m benchmarks.answering.speed --rounds 7

- ``naive``: a plain loop of one question at a time, no Trainer and no files: read the picture, tokenise, encode the
  picture, run the whole sequence, decode from the cache. For likelihoods one forward pass for each candidate.
- ``one by one``: ``m2pt evaluate --shared-prefix false``: batches of questions, each with a picture of its own.
- ``shared prefix``: ``m2pt evaluate``.

The last two are timed with everything an evaluation does: the hash of the data, the Trainer, the prediction file.
Rounds alternate, times are process time of one thread. In every round the first two answer another part of the set,
whole pictures: over all rounds one in ``--one-in`` of its questions, once. The third answers the whole set each time.
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything

from benchmarks.report.machine import machine
from data_modules.base import as_sample
from data_modules.benchmark import BenchmarkDataModule
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.evaluation import answer, answering_of, header_of
from experiments.runs.prepare import check_experiment
from lightning_m2pt.answering.decoding import AnsweringMethod
from lightning_m2pt.answering.decoding_steps import advance
from lightning_m2pt.answering.likelihood import Candidates, tokenised_candidates
from lightning_m2pt.answering.partial_predictions import PartialPredictions
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.system.rank_group import RankGroup

SETS: dict[str, tuple[AnsweringMethod, int | None]] = {
    "pope": ("greedy", None),
    "mme": ("greedy", None),
    "cifar10": ("likelihood_sum", 280),
}
"""How each set is answered, and how many of its questions; None: all."""

NAIVE, ONE_BY_ONE, SHARED_PREFIX = "naive", "one by one", "shared prefix"
WAYS = (NAIVE, ONE_BY_ONE, SHARED_PREFIX)


def alone(benchmark: BenchmarkDataModule, question: Question) -> Batch:
    """Returns one question as a batch, picture read and text tokenised."""
    sample, processor = as_sample(question), benchmark.processor
    text = processor.encode(sample, benchmark.template, with_answers=False)
    batch = Collator(processor.pad_token_id)([encoded_sample(sample, text, processor, question.source)])
    assert isinstance(batch, Batch)
    return batch


@torch.inference_mode()
def naive_greedy(backbone: Backbone, benchmark: BenchmarkDataModule, question: Question) -> str:
    """Decodes one answer from the cache."""
    state = backbone.prefill(alone(benchmark, question))
    tokens: list[int] = []
    while True:
        token = int(state.logits.argmax())
        if token == benchmark.processor.eos_token_id:
            break
        tokens.append(token)
        if len(tokens) == benchmark.max_new_tokens:
            break
        state = advance(backbone, state, torch.tensor([token]))
    return benchmark.processor.decode(tokens)


@torch.inference_mode()
def naive_likelihood(
    backbone: Backbone, benchmark: BenchmarkDataModule, question: Question, candidates: Candidates
) -> str:
    """Scores one candidate after the other, each with the whole question in front."""
    asked = alone(benchmark, question)
    sums = []
    for ids in candidates.token_ids:
        text = torch.cat([asked.input_ids, torch.tensor([ids])], dim=1)
        spans = torch.cat([asked.spans, torch.full((1, len(ids)), int(Span.ANSWER))], dim=1)
        whole = Batch(asked.pixel_values, text, torch.full_like(text, -100), spans, asked.sample_ids, asked.tasks)
        states = backbone(whole).hidden_states[:, -len(ids) - 1 : -1]
        log_probabilities = backbone.logits(states).float().log_softmax(dim=-1)[0]
        sums.append(float(log_probabilities[range(len(ids)), list(ids)].sum()))
    return candidates.texts[sums.index(max(sums))]


def naive_loop(experiment: Experiment, benchmark: BenchmarkDataModule, method: AnsweringMethod) -> dict[str, str]:
    """Answers a set's questions one at a time; returns the answers by id."""
    backbone = experiment.model.backbone
    if method == "greedy":
        return {question.id: naive_greedy(backbone, benchmark, question) for question in benchmark.questions()}
    candidates = tokenised_candidates(benchmark.processor, benchmark.template, benchmark.candidates)
    return {
        question.id: naive_likelihood(backbone, benchmark, question, candidates) for question in benchmark.questions()
    }


def evaluated(
    experiment: Experiment, benchmark: BenchmarkDataModule, method: AnsweringMethod, *, by_picture: bool
) -> dict[str, str]:
    """Answers a set's questions as ``m2pt evaluate`` does; returns the answers by id."""
    benchmark.by_picture = by_picture
    answering = answering_of(benchmark, method)
    header = header_of(experiment, benchmark, None, experiment.model.method.toggles(), answering)
    with tempfile.TemporaryDirectory() as folder:
        partial = PartialPredictions(Path(folder) / f"{benchmark.name}.jsonl", header)
        answer(experiment, benchmark, answering, partial, lambda: None, RankGroup())
        return {row["id"]: row["answer"] for row in read_predictions(partial.path).predictions}


def parts_of(questions: Sequence[Question], number: int) -> list[list[Question]]:
    """Shares questions out, pictures whole and next to each other in different parts."""
    places = {name: place for place, name in enumerate(dict.fromkeys(question.image_id for question in questions))}
    return [
        [question for question in questions if places[question.image_id] % number == part] for part in range(number)
    ]


def compare_on(experiment: Experiment, benchmark: BenchmarkDataModule, rounds: int, one_in: int) -> dict[str, Any]:
    """Measures the three ways on one set, in alternating rounds."""
    method, limit = SETS[benchmark.name]
    benchmark.limit = limit
    questions = benchmark.questions()
    ways: dict[str, Callable[[], dict[str, str]]] = {
        NAIVE: lambda: naive_loop(experiment, benchmark, method),
        ONE_BY_ONE: lambda: evaluated(experiment, benchmark, method, by_picture=False),
        SHARED_PREFIX: lambda: evaluated(experiment, benchmark, method, by_picture=True),
    }
    milliseconds: dict[str, list[float]] = {way: [] for way in WAYS}
    answers: dict[str, dict[str, str]] = {way: {} for way in WAYS}
    for part in parts_of(questions, rounds * one_in)[:rounds]:
        for way, answered in ways.items():
            benchmark.read_questions = list(questions) if way == SHARED_PREFIX else part
            started = time.process_time()
            answers[way] |= answered()
            spent = time.process_time() - started
            milliseconds[way].append(1000 * spent / len(benchmark.questions()))
    medians = {way: statistics.median(values) for way, values in milliseconds.items()}
    return {
        "answered": method,
        "questions": len(questions),
        "pictures": len({question.image_id for question in questions}),
        "distinct_questions": len({(question.image_id, question.text) for question in questions}),
        "questions_at_once": benchmark.batch_size,
        "milliseconds_per_question": medians,
        "questions_per_second": {way: 1000 / value for way, value in medians.items()},
        "times_naive": {way: medians[NAIVE] / medians[way] for way in WAYS[1:]},
        "answers_compared": len(answers[NAIVE]),
        "answers_unlike_naive": {
            way: sum(answers[way][name] != text for name, text in answers[NAIVE].items()) for way in WAYS[1:]
        },
        "rounds": milliseconds,
    }


def main() -> None:
    """Measures every set and stores the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="experiments/m2pt_base.yaml")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one-in", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/evaluation_speed.json"))
    own = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    experiment = parse_experiment(["--config", own.config, "--trainer.accelerator", "cpu"])
    check_experiment(experiment)
    seed_everything(experiment.seed, verbose=False)  # the prompts are as they are drawn, not tuned
    experiment.model.configure_model()
    experiment.model.eval()
    content: dict[str, Any] = {
        "config": own.config,
        "made_with": machine(),
        "clock": "process time, medians",
        "sets": {},
    }
    own.output.parent.mkdir(parents=True, exist_ok=True)
    of_name = {benchmark.name: benchmark for benchmark in experiment.benchmarks}
    for name in SETS:
        content["sets"][name] = compare_on(experiment, of_name[name], own.rounds, own.one_in)
        own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
