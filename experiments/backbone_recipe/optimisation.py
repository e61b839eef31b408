"""Muon for matrices, AdamW for the rest, and a schedule by steps."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from experiments.backbone_recipe.settings import OptimizerSettings

MUON_MOMENTUM = 0.95
MUON_WEIGHT_DECAY = 0.01
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.775, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ADAMW_BETAS = (0.9, 0.98)
NOT_MUON = ("embed", "lm_head")
"""Matrices that are tables of vectors and not maps between spaces: AdamW trains them."""


class Muon(torch.optim.Optimizer):
    """Muon: momentum, then the nearest orthogonal matrix to the update (Jordan 2024).

    ``torch.optim.Muon`` computes the orthogonal matrix in bfloat16. On a CPU without bfloat16 instructions that is ten
    times slower than float32 and would take longer than the model itself, and its rounding differs between CPUs.
    """

    def __init__(self, parameters: Iterable[Parameter], rate: float) -> None:
        super().__init__(list(parameters), {"lr": rate})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; matrices of one shape together."""
        for group in self.param_groups:
            with_gradient = [parameter for parameter in group["params"] if parameter.grad is not None]
            for shape, same in itertools.groupby(sorted(with_gradient, key=_shape), key=_shape):
                self._update(list(same), group["lr"] * math.sqrt(max(1, shape[0] / shape[1])), group["lr"])

    def _update(self, parameters: list[Parameter], scaled_rate: float, rate: float) -> None:
        updates = []
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(gradient, 1 - MUON_MOMENTUM)
            updates.append(gradient.lerp(momentum, MUON_MOMENTUM))
        for parameter, update in zip(parameters, orthogonalise(torch.stack(updates)), strict=True):
            parameter.mul_(1 - rate * MUON_WEIGHT_DECAY).add_(update, alpha=-scaled_rate)


def _shape(parameter: Parameter) -> tuple[int, ...]:
    return tuple(parameter.shape)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Brings the singular values of matrices (N, R, C) near 1 by Newton-Schulz steps."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    result = matrices.mT if tall else matrices
    result = result / (torch.linalg.matrix_norm(result, keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = result @ result.mT
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result.mT if tall else result


def rate_share(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Returns the share of the full rate at a step (from 0): linear warm-up, constant, linear decay."""
    warm_up = min(1.0, (step + 1) / settings.warm_up_steps)
    decay = min(1.0, max(settings.final_rate_share, (steps - step) / (steps * settings.decay_share)))
    return warm_up * decay


@dataclass(frozen=True)
class RecipeOptimizer:
    """Both optimizers of a stage over named parameters.

    Attributes:
        parameters: Everything that is trained, by name.
        optimizers: Muon and AdamW, by name.
    """

    parameters: dict[str, Parameter]
    optimizers: dict[str, torch.optim.Optimizer]

    @classmethod
    def build(
        cls, parameters: Mapping[str, Parameter], settings: OptimizerSettings, own_rates: Mapping[str, float]
    ) -> "RecipeOptimizer":
        """Splits parameters among the optimizers.

        Args:
            parameters: What is trained, by name.
            settings: Rates.
            own_rates: Prefixes of names that AdamW trains at a rate of their own.
        """
        matrices: list[Parameter] = []
        groups: dict[float, list[Parameter]] = {}
        for name, parameter in parameters.items():
            own = next((rate for prefix, rate in own_rates.items() if name.startswith(prefix)), None)
            if own is None and parameter.ndim == 2 and not any(part in name for part in NOT_MUON):
                matrices.append(parameter)
            else:
                groups.setdefault(settings.adamw_rate if own is None else own, []).append(parameter)
        adamw_groups: list[dict[str, Any]] = [{"params": group, "lr": rate} for rate, group in groups.items()]
        optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": Muon(matrices, settings.muon_rate),
            "adamw": torch.optim.AdamW(adamw_groups, betas=ADAMW_BETAS, weight_decay=0.0, foreach=False),
        }
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["full_rate"] = group["lr"]
        return cls(dict(parameters), optimizers)

    def step(self, share: float) -> None:
        """Updates the parameters at a share of the full rates and drops their gradients."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["full_rate"] * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Returns the optimizers' tensors under flat names."""
        return {
            f"{kind}/{name}/{key}": value
            for kind, optimizer in self.optimizers.items()
            for name, parameter in self.parameters.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what ``state`` gave."""
        for flat_name, value in tensors.items():
            kind, name, key = flat_name.split("/")
            self.optimizers[kind].state[self.parameters[name]][key] = value
