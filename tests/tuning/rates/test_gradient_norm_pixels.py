"""A pixel prompt moved by the rule: through the real module and Trainer, alone, beside AdamW, on several ranks."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.gradient_norm import GradientNorm
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW, Schedule
from tests.support.ranks import on_ranks
from tests.support.runs.whole_trainings import tune
from tests.support.small_experiment import small_words
from tests.support.small_training import Gradients, loader_of, module_with, one_step, small_trainer

STEADY = Schedule("constant_with_warmup", 0.0)


def prompt_of(module: TuningModule) -> Tensor:
    return module.method.named_tensors()[next(name for name in module.method.named_tensors() if "delta" in name)]


def batches(steps: int) -> list[Any]:
    return [each for step in range(steps) for each in one_step([random_batch(2, seed=step)])]


@pytest.mark.parametrize(
    ("compose", "norm", "precision"),
    [
        ("overlay", "all", None),
        ("overlay", "border", None),
        ("shrink", "all", None),
        ("shrink", "border", "bf16-mixed"),
        ("overlay", "all", "bf16-mixed"),
    ],
)
def test_every_step_of_a_fit_is_the_rules(tmp_path: Path, norm: Any, compose: Any, precision: Any) -> None:
    """The gradient inside of the border is part of the published norm, and moves nothing."""
    rule = GradientNorm(rate=0.3, norm=norm, decay="step")
    module, gradients = module_with(tmp_path, PixelPrompting(0.2, compose), gradient_norm=rule), Gradients()
    delta = prompt_of(module)
    border = delta.moves.expand_as(delta)  # type: ignore[attr-defined]
    small_trainer(gradients, max_steps=4, precision=precision).fit(module, loader_of(batches(4)))
    value = torch.zeros(delta.shape, dtype=torch.float64)
    for number, step in enumerate(gradients.steps):
        (gradient,) = step.values()
        inside = float(gradient[~border].norm())
        assert inside > 0.1 * float(gradient[border].norm())
        norm_taken = float((gradient if norm == "all" else gradient[border]).norm())
        rate = 0.3 * (1 + math.cos(math.pi * number / 4)) / 2
        value -= torch.where(border, rate * gradient / (norm_taken + 1e-10), 0.0)
    assert torch.allclose(delta.double(), value, rtol=1e-5, atol=1e-6)
    assert not delta[~border].any()


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_adamw_moves_the_border_alone(tmp_path: Path, weight_decay: float) -> None:
    settings = AdamW(0.05, weight_decay=weight_decay)
    module = module_with(tmp_path, PixelPrompting(0.2, init_std=0.1), optimizer=settings, schedule=STEADY)
    delta = prompt_of(module)
    border, start = delta.moves.expand_as(delta), delta.detach().clone()  # type: ignore[attr-defined]
    small_trainer(max_steps=3).fit(module, loader_of(batches(3)))
    assert not delta[~border].any()
    assert (delta != start)[border].all()


def test_clipping_of_a_method_beside_it_is_as_if_the_prompt_had_no_gradient(tmp_path: Path) -> None:
    """One step with a limit: visual prompts move by what their own norm leaves, the border by the rule's length."""
    rule, limit = GradientNorm(rate=0.2, decay="none"), 1e-3
    settings = AdamW(0.01, epsilon=1.0, betas=(0.0, 0.0))  # a step is close to proportional to the gradient
    method = Combined([PixelPrompting(0.2), M2PT(2, 0, interaction=False)])
    module, gradients = (
        module_with(tmp_path, method, gradient_norm=rule, optimizer=settings, schedule=STEADY),
        Gradients(),
    )
    small_trainer(gradients, max_steps=1, gradient_clip_val=limit).fit(module, loader_of(batches(1)))
    [step] = gradients.steps
    others = {name: each for name, each in step.items() if "delta" not in name}
    norm = math.sqrt(sum(float(each.square().sum()) for each in others.values()))
    assert norm > 2 * limit
    tensors = {f"method.{name}": each.detach().double() for name, each in method.named_tensors().items()}
    for name, gradient in others.items():
        clipped = gradient * limit / norm
        expected = gradients.start[name] - 0.01 * clipped / (clipped.abs() + 1)
        assert torch.allclose(tensors[name], expected, rtol=0, atol=2e-8), name
    (delta,) = (each for name, each in tensors.items() if "delta" in name)
    (gradient,) = (each for name, each in step.items() if "delta" in name)
    border = prompt_of(module).moves.expand_as(delta)  # type: ignore[attr-defined]
    assert float(delta.norm()) == pytest.approx(0.2 * float(gradient[border].norm() / gradient.norm()), rel=1e-4)


def test_a_step_of_the_shipped_rule_is_the_same_however_it_is_split(tmp_path: Path) -> None:
    """1 x 8 = 4 x 2, through the Trainer from the real loader, of every number of the border."""
    words = [*small_words(tmp_path, "experiments/evp_base.yaml", steps=3), "--model.backbone.dtype=float64"]
    [whole] = tune([*words, "--model.gradient_norm.grey_levels=0.5"], tmp_path / "whole").values()
    split = [*words, "--model.gradient_norm.grey_levels=0.5", "--data.micro_batch_size=2"]
    [found] = tune(split, tmp_path / "split").values()
    assert torch.allclose(found, whole, rtol=0, atol=1e-8)  # of float32, around 5e-3
    assert not whole[:, 6:-6, 6:-6].any()
    assert float(whole.abs().max()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("norm", ["all", "border"])
def test_two_ranks_move_a_pixel_prompt_as_one_process_does(tmp_path: Path, strategy: str, norm: str) -> None:
    words = [*small_words(tmp_path, steps=4), "--model.method=lightning_m2pt.methods.pixel_prompting.PixelPrompting"]
    words += ["--model.optimizer.learning_rate=0.001", "--model.gradient_norm.rate=0.05", "--data.micro_batch_size=2"]
    words += [f"--model.gradient_norm.norm={norm}", "--model.backbone.dtype=float64"]
    ranks = [*words, "--trainer.devices=2", "--config", f"experiments/strategies/{strategy}.yaml"]
    [alone] = tune(words, tmp_path / "alone").values()
    found = on_ranks(2, tune, ranks, tmp_path / "ranks", timeout=280)
    for tensors in found:
        [delta] = tensors.values()
        assert torch.allclose(delta, alone, rtol=0, atol=1e-8)  # of float32, around 5e-3
    assert float(alone.norm()) > 0.03
