"""This project beside transformers' Trainer and PEFT on the real pair: steps and answers, equal losses first.

    m2pt models fetch smollm2_dinov2 --to models/smollm2_dinov2
    OMP_NUM_THREADS=1 python -m benchmarks.training.on_real_pair.beside_peft --rounds 3

LoRA and prefix tuning from the same numbers, on the same batches of eight pictures with four questions each in the
pair's own template. In float32 the losses of the first steps must be the same. Then both train in bfloat16, a few steps
each in turn: this project by ``m2pt fit``'s own Trainer, its data module and callbacks, the peer by transformers'
Trainer on batches that lie ready. The answers to questions of POPE are those of ``m2pt evaluate`` and of ``generate``.
Words of the experiment may follow.
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
import argparse
import json
import logging
import os
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from benchmarks.answering.speed import evaluated
from benchmarks.report.beside_peft import OURS, THEIRS
from benchmarks.report.machine import machine
from benchmarks.training.on_real_pair.peers import (
    LEARNING_RATE,
    clocks,
    inputs_of,
    llava_of_pair,
    steps_of_library,
    tuned_by_peft,
)
from benchmarks.training.overhead import prepared
from benchmarks.training.peers import require_equal
from data_modules.base import as_sample
from experiments.configuration.cli import Experiment
from experiments.runs.training import prepared_trainer, tuning_data
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.tuning.losses import supervised_rows

RATE = ["--model.optimizer.learning_rate", str(LEARNING_RATE)]
ONE_PROCESS = ["--trainer.devices", "1"]
PICTURES_OF_A_STEP = ["--data.batch_size", "8"]
PREFIX_METHOD = "lightning_m2pt.methods.prefix_tuning.PrefixTuning"
METHODS: dict[str, list[str]] = {
    "LoRA, r = 8": ["--config", "experiments/lora_smollm2.yaml", "--model.method.interaction", "false"],
    "prefix tuning, 10 rows": [
        *("--config", "experiments/ptum_smollm2.yaml", "--model.method", PREFIX_METHOD, "--model.method.length", "10"),
        *("--model.method.init_std", "0.3", "--model.method.interaction", "false"),
    ],
}
COMPARED_SAMPLES, COMPARED_STEPS, WARM_UP_STEPS = 2, 2, 1
QUESTIONS_AT_ONCE = 16


class StepTimes(Callback):
    """Process and wall seconds of each optimizer step of Lightning's Trainer, loading and optimizer in them."""

    def __init__(self) -> None:
        self.seconds: list[tuple[float, float]] = []
        self._last: tuple[float, float] | None = None
        self._steps = 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Reads the clocks where a step ends; the first one's time is not known and not wanted."""
        if trainer.global_step == self._steps:
            return
        self._steps, now = trainer.global_step, clocks()
        if self._last is not None:
            self.seconds.append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now


def folder_of_pair() -> Path:
    """Returns where the pair was fetched to.

    Raises:
        BadInputError: If it is not there.
    """
    folder = Path(os.environ.get("M2PT_MODELS") or "models") / "smollm2_dinov2"
    if not (folder / "language" / "model.safetensors").is_file():
        raise BadInputError(
            f"{folder}: the real pair is not there",
            where="M2PT_MODELS",
            expected="SmolLM2-135M-Instruct and DINOv2-small as fetched",
            hint="m2pt models fetch smollm2_dinov2",
        )
    return folder


def library_model(experiment: Experiment, folder: Path) -> Any:
    """Returns the pair in the library's classes, in the type of the experiment's backbone."""
    backbone: Any = experiment.model.backbone
    dtype = getattr(torch, backbone.dtype_name)
    return llava_of_pair(folder / "vision", folder / "language", backbone.projector, dtype)


def compared_losses(words: list[str], folder: Path) -> dict[str, list[float]]:
    """Returns the losses of the first steps in float32, which must be equal, on few samples.

    Raises:
        UnequalLossesError: If they are not.
    """
    small = ["--model.backbone.dtype", "float32", "--data.batch_size", str(COMPARED_SAMPLES)]
    experiment = prepared([*words, *small])
    model, library = experiment.model, library_model(experiment, folder)
    tuned = tuned_by_peft(library, model.method)
    model.train()
    ours, theirs = (
        torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
        for parameters in (trained_parameters(model).values(), [p for p in tuned.parameters() if p.requires_grad])
    )
    losses: dict[str, list[float]] = {OURS: [], THEIRS: []}
    patches, token = model.backbone.shape.connected_patches, library.config.image_token_id
    for batch in islice(tuning_data(experiment).train_dataloader(), COMPARED_STEPS):
        own = supervised_rows(model.backbone, batch, model.shortcuts).losses.mean()
        peer = tuned(**inputs_of(batch, patches, token)).loss
        for name, optimizer, loss in ((OURS, ours, own), (THEIRS, theirs, peer)):
            losses[name].append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        require_equal({name: each[-1] for name, each in losses.items()})
    return losses


def steps_of_ours(words: list[str], steps: int) -> list[tuple[float, float]]:
    """Trains with everything that ``m2pt fit`` adds; returns process and wall seconds of each step but the first."""
    few = ["--trainer.max_steps", str(steps), "--trainer.limit_val_batches", "0"]
    experiment, times = prepared([*words, *few]), StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        trainer = prepared_trainer(experiment, Path(folder), resumed_step=0)  # knows limits, and how a step is split
        trainer.callbacks.append(times)  # type: ignore[attr-defined]
        trainer.fit(experiment.model, datamodule=tuning_data(experiment))
    return times.seconds


def timed_steps(words: list[str], folder: Path, rounds: int, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Returns process and wall seconds of each step, warmed up, both sides in turn."""
    experiment = prepared(words)
    library = library_model(experiment, folder)
    patches, token = experiment.model.backbone.shape.connected_patches, library.config.image_token_id
    loader = tuning_data(experiment).train_dataloader()
    batches = [inputs_of(batch, patches, token) for batch in islice(loader, WARM_UP_STEPS + steps)]
    tuned = tuned_by_peft(library, experiment.model.method)
    seconds: dict[str, list[tuple[float, float]]] = {OURS: [], THEIRS: []}
    for _ in range(rounds):
        seconds[OURS] += steps_of_ours(words, WARM_UP_STEPS + steps)
        with tempfile.TemporaryDirectory() as output:
            seconds[THEIRS] += steps_of_library(tuned, batches, Path(output))[WARM_UP_STEPS:]
    return seconds


def batch_of_questions(benchmark: Any, questions: Sequence[Any]) -> Batch:
    """Returns questions as one batch, pictures read and texts tokenised."""
    processor, encoded = benchmark.processor, []
    for question in questions:
        sample = as_sample(question)
        text = processor.encode(sample, benchmark.template, with_answers=False)
        encoded.append(encoded_sample(sample, text, processor, question.source))
    batch = Collator(processor.pad_token_id)(encoded)
    assert isinstance(batch, Batch)
    return batch


@torch.inference_mode()
def generated(library: Any, benchmark: Any, patches: int) -> dict[str, str]:
    """Answers by the library's ``generate``, some questions at a time; returns the answers by id."""
    processor, answers = benchmark.processor, {}
    questions = benchmark.questions()
    for start in range(0, len(questions), QUESTIONS_AT_ONCE):
        asked = questions[start : start + QUESTIONS_AT_ONCE]
        batch = batch_of_questions(benchmark, asked)
        inputs = inputs_of(batch, patches, library.config.image_token_id, on_the_left=True)
        del inputs["labels"]
        inputs["pixel_values"] = inputs["pixel_values"].to(library.dtype)
        tokens = library.generate(
            **inputs,
            max_new_tokens=benchmark.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=processor.eos_token_id,
            pad_token_id=processor.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :].tolist()
        for question, own in zip(asked, tokens, strict=True):
            answers[question.id] = processor.decode(own)  # up to the first end token
    return answers


def timed_answers(words: list[str], folder: Path, number: int) -> dict[str, Any]:
    """Returns seconds of both for so many answers of the untuned model, and how many answers differ."""
    experiment = prepared(words)
    experiment.model.eval()
    logging.getLogger("lightning_m2pt").setLevel(logging.ERROR)
    library, (benchmark,) = library_model(experiment, folder), [b for b in experiment.benchmarks if b.name == "pope"]
    benchmark.limit = number
    patches = experiment.model.backbone.shape.connected_patches
    found: dict[str, Any] = {"questions": len(benchmark.questions()), "seconds": {}}
    answers = {}
    for name, work in (
        (OURS, lambda: evaluated(experiment, benchmark, "greedy", by_picture=True)),
        (THEIRS, lambda: generated(library, benchmark, patches)),
    ):
        started = clocks()
        answers[name] = work()
        found["seconds"][name] = [now - then for now, then in zip(clocks(), started, strict=True)]
    found["unlike"] = sum(answers[OURS][name] != text for name, text in answers[THEIRS].items())
    return found


def main() -> None:
    """Compares, measures, and stores after every method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--compared", type=int, default=16, help="questions answered in float32")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/beside_peft.json"))
    own, words = parser.parse_known_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    try:
        folder = folder_of_pair()
    except BadInputError as error:
        parser.exit(2, f"{error}\n")
    content: dict[str, Any] = {"made_with": machine(), "rounds": own.rounds, "steps": {}}
    for name, chosen in METHODS.items():
        given = [*chosen, *RATE, *ONE_PROCESS, *PICTURES_OF_A_STEP, *words]
        losses = compared_losses(given, folder)
        seconds = timed_steps(given, folder, own.rounds, own.steps)
        medians = {
            side: [statistics.median(column) for column in zip(*each, strict=True)] for side, each in seconds.items()
        }
        content["steps"][name] = {"losses_float32": losses, "seconds": medians, "all": seconds}
        own.output.write_text(json.dumps(content, indent=2) + "\n")
    given = ["--config", "experiments/frozen_smollm2.yaml", *ONE_PROCESS, *words]
    content["answers_float32"] = timed_answers([*given, "--model.backbone.dtype", "float32"], folder, own.compared)
    own.output.write_text(json.dumps(content, indent=2) + "\n")
    content["answers"] = timed_answers(given, folder, own.questions)
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
