"""Trained tensors and gradients by name: of the parameters, or of a strategy that keeps them elsewhere."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from callbacks.gradient_check import GradientCheck
from callbacks.prompt_statistics import PromptStatistics
from lightning_m2pt.parallel.whole_tensors import whole_gradients, whole_tensors
from tests.callbacks.test_every_callback import METRICS_FILE, MethodToy, fit


def module() -> nn.Module:
    made = nn.ModuleDict({"frozen": nn.Linear(2, 2), "trained": nn.Linear(2, 1)})
    made["frozen"].requires_grad_(False)
    made["trained"].weight.grad = torch.tensor([[1.0, 2.0]])
    return made


class Apart:
    """Holds what the parameters do not."""

    def trained_gradients(self, module: nn.Module) -> dict[str, Tensor]:
        return {"trained.bias": torch.ones(1)}

    def trained_tensors(self, module: nn.Module) -> dict[str, Tensor]:
        return {"trained.bias": torch.zeros(1)}


def trainer_of(strategy: object) -> Any:
    return SimpleNamespace(strategy=strategy)


def test_parameters_are_whole_unless_the_strategy_says_otherwise() -> None:
    made = module()
    assert {name: one.tolist() for name, one in whole_gradients(trainer_of(object()), made).items()} == {
        "trained.weight": [[1.0, 2.0]]
    }
    values = whole_tensors(trainer_of(object()), made)
    assert list(values) == ["trained.weight", "trained.bias"]
    assert not any(each.requires_grad for each in values.values())
    assert whole_gradients(trainer_of(Apart()), made) == {"trained.bias": torch.ones(1)}
    assert whole_tensors(trainer_of(Apart()), made) == {"trained.bias": torch.zeros(1)}


def test_the_callbacks_read_gradients_and_values_there(tmp_path: Any) -> None:
    """A strategy that keeps them is believed, whatever the parameters hold."""
    toy = MethodToy(used_rows=1)  # row 1 of the parameter has no gradient
    kept: dict[str, Tensor] = {}

    class Keeping(GradientCheck):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            name = "method.prompts"
            kept[name] = torch.full_like(pl_module.method.prompts, 3.0)
            trainer.strategy.trained_gradients = lambda _: kept
            trainer.strategy.trained_tensors = lambda _: {name: torch.full_like(kept[name], 5.0)}
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    fit(toy, [Keeping(), PromptStatistics(every_n_steps=1)], folder=tmp_path)
    header, first = (line.split(",") for line in (tmp_path / METRICS_FILE).read_text().splitlines()[:2])
    row = dict(zip(header, first, strict=True))
    width = toy.method.prompts.shape[-1]
    assert float(row["train/row_norm/visual_prompts"]) == pytest.approx(5 * width**0.5)
    assert float(row["train/gradient_row_norm/visual_prompts"]) == pytest.approx(3 * width**0.5)
    assert float(row["train/gradient_norm"]) == pytest.approx(3 * (2 * width) ** 0.5)
