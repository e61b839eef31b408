"""The loss of a task is that of its own turns, in the row of its own step."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from callbacks.logged_once import LoggedOnce
from callbacks.loggers import METRICS_FILE, StepMetrics
from callbacks.task_loss import TaskLosses, by_metric, by_set
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.testing.random_backbone import IMAGE_SIZE, VOCABULARY, random_backbone
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW

TURNS = {3: range(5, 7), 8: range(9, 12), 13: range(14, 15)}
"""Answers of two, three and one tokens; between them stand questions."""
TASKS = [("colour", "count", "shape"), ("count", "shape", "colour")]
LENGTH = 16


def two_conversations(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, VOCABULARY, (2, LENGTH), generator=generator)
    input_ids[:, 1] = IMAGE_TOKEN_ID
    spans = torch.full((2, LENGTH), int(Span.QUESTION))
    spans[:, 1] = Span.IMAGE
    for answer in TURNS.values():
        spans[:, list(answer)] = Span.ANSWER
    labels = torch.where(spans == Span.ANSWER, input_ids, IGNORED_LABEL)
    pixels = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    return Batch(pixels, input_ids, labels, spans, ["one", "two"], TASKS, int((labels != IGNORED_LABEL).sum()))


def expected_losses(module: TuningModule, batch: Batch) -> dict[str, float]:
    """Returns the mean loss per token of every task, read off the logits of the whole sequence."""
    output = module.backbone(batch)
    logits = module.backbone.logits(output.hidden_states)
    more_rows = logits.shape[1] - LENGTH  # the picture's rows stand in front of all answers
    losses: dict[str, list[float]] = {}
    for sample, tasks in enumerate(TASKS):
        for task, answer in zip(tasks, TURNS.values(), strict=True):
            for place in answer:
                row = logits[sample, place + more_rows - 1]
                losses.setdefault(task, []).append(float(cross_entropy(row, batch.input_ids[sample, place])))
    return {task: sum(found) / len(found) for task, found in losses.items()}


@pytest.mark.parametrize("steps", [1, 2], ids=["each step alone", "a window of two"])
def test_every_tasks_loss_is_that_of_its_turns(tmp_path: Path, steps: int) -> None:
    backbone, method = random_backbone(tmp_path), M2PT(2, 1, interaction=False)
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(7))
    module = TuningModule(backbone, method, AdamW(learning_rate=0.0))
    freeze_all_but_declared(module, method)
    method.attach(backbone)
    batches = [two_conversations(seed) for seed in range(3)]
    with torch.no_grad():
        expected = [expected_losses(module, batch) for batch in batches]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[LoggedOnce(), TaskLosses(steps=steps, every_n_steps=1)],
        logger=[StepMetrics(tmp_path / METRICS_FILE, 0)],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch))
    rows = list(csv.DictReader((tmp_path / METRICS_FILE).open()))
    assert len({round(loss, 3) for losses in expected for loss in losses.values()}) == 9
    for number, row in enumerate(rows):
        window = expected[max(0, number + 1 - steps) : number + 1]  # all have the same tokens of each task
        for task in TASKS[0]:
            mean = sum(losses[task] for losses in window) / len(window)
            assert float(row[f"train/loss_of_task/{task}"]) == pytest.approx(mean, rel=1e-4)


def test_a_mixtures_sets_are_added_up_and_keep_their_tasks() -> None:
    sums = {"one::count": (6.0, 3), "one::shape": (1.0, 2), "two::two": (4.0, 8), "count": (5.0, 1)}
    assert by_set(sums) == {"train/loss_of_set/one": (7.0, 5), "train/loss_of_set/two": (4.0, 8)}
    assert by_metric(sums) == {
        "train/loss_of_task/one/count": (6.0, 3),
        "train/loss_of_task/one/shape": (1.0, 2),
        "train/loss_of_task/count": (5.0, 1),
    }
