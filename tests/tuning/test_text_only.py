"""Micro-batches without a picture: every trained tensor still has a gradient, on every rank."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.losses import nothing_of, supervised_rows
from tests.support.small_training import Gradients, loader_of, module_with, one_step, small_trainer

ROOT = Path(__file__).parents[2]


def without_picture(batch: Batch) -> Batch:
    ids = batch.input_ids.masked_fill(batch.input_ids == IMAGE_TOKEN_ID, 5)
    return replace(batch, input_ids=ids, pixel_values=batch.pixel_values[:0])


def gradients(folder, batches, **keys):
    module, kept = module_with(folder, M2PT(3, 4, init="normal", init_std=0.5)), Gradients()
    small_trainer(kept, max_steps=1, accumulate_grad_batches=len(batches), **keys).fit(
        module, loader_of(one_step(batches))
    )
    return kept.steps[0]


def test_only_what_stands_in_the_text_moves(tmp_path):
    found = gradients(tmp_path, [without_picture(random_batch())])
    for name, gradient in found.items():
        assert (float(gradient.abs().max()) > 0) == ("textual_prompts" in name), name


class GradientsThere(Callback):
    """Keeps the names of tensors that a step left without a gradient; zeros are one."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.missing = [name for name, each in trained_parameters(pl_module).items() if each.grad is None]


def test_no_trained_tensor_is_without_a_gradient(tmp_path):
    module, kept = module_with(tmp_path, M2PT(3, 4)), GradientsThere()
    small_trainer(kept, max_steps=1).fit(module, loader_of(one_step([without_picture(random_batch())])))
    assert kept.missing == []


def test_a_step_of_both_kinds_is_the_sum_of_both(tmp_path):
    with_pictures, text = random_batch(), without_picture(random_batch(seed=1))
    tokens = [float((batch.labels >= 0).sum()) for batch in (with_pictures, text)]
    parts = [gradients(tmp_path, [batch]) for batch in (with_pictures, text)]
    together = gradients(tmp_path, [with_pictures, text])
    for name, found in together.items():
        expected = sum(part[name] * count for part, count in zip(parts, tokens, strict=True)) / sum(tokens)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alike", [4, 6, 7, 8, 9], ids=lambda alike: f"{alike} of 9 tokens alike")
@pytest.mark.parametrize("rows_only", [True, False])
def test_texts_that_are_alike_up_to_their_answers_lose_no_supervised_row(tmp_path, alike, rows_only):
    module, batch = module_with(tmp_path, M2PT(3, 4, init="normal", init_std=0.5)), random_batch()
    batch = without_picture(batch)
    batch.input_ids[:, :alike] = batch.input_ids[0, :alike]
    batch.labels = torch.where(batch.labels >= 0, batch.input_ids, batch.labels)
    expected = supervised_rows(module.backbone, batch, EVERY_ROW).losses
    found = supervised_rows(module.backbone, batch, Shortcuts(supervised_rows_only=rows_only)).losses
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_nothing_has_a_gradient_for_everything_even_where_numbers_are_infinite():
    parameters = [torch.nn.Parameter(torch.full((2, 3), float("inf"))), torch.nn.Parameter(torch.ones(0))]
    nothing = nothing_of(parameters)
    nothing.backward()
    assert float(nothing) == 0
    assert [parameter.grad.tolist() for parameter in parameters] == [[[0.0] * 3] * 2, []]


@pytest.mark.slow
def test_two_ranks_of_which_one_has_no_picture_do_not_wait_for_ever(tmp_path):
    """DDP refuses or waits where a gradient is missing; both ranks take two steps."""
    program = (
        "import lightning_m2pt.torchvision_guard, sys, torch\n"
        "from pathlib import Path\n"
        "from lightning.pytorch.strategies import DDPStrategy\n"
        "from tests.tuning.test_text_only import *\n"
        "from torch.utils.data import DataLoader\n"
        "class ByRank(torch.utils.data.IterableDataset):\n"
        "    def __iter__(self):\n"
        "        for step in range(3):\n"
        "            batch = random_batch(seed=step)\n"
        "            alone = torch.distributed.get_rank() == step % 2\n"
        "            yield one_step([without_picture(batch) if alone else batch])[0]\n"
        "if __name__ == '__main__':\n"
        "    module = module_with(Path(sys.argv[1]), M2PT(3, 4, init='normal', init_std=0.5))\n"
        "    trainer = small_trainer(max_steps=3, devices=2, strategy=DDPStrategy(process_group_backend='gloo'))\n"
        "    trainer.fit(module, DataLoader(ByRank(), batch_size=None, collate_fn=lambda batch: batch))\n"
        "    print('steps', trainer.global_step)\n"
    )
    path = tmp_path / "program.py"
    path.write_text(program)
    words, environment = [sys.executable, str(path), str(tmp_path)], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert "steps 3" in done.stdout, done.stderr[-2000:]
