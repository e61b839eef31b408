"""Optimizer and learning-rate schedule as factories: configuration in, torch objects out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn, optim

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.hidden_modules import hidden_module

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler


@dataclass
class AdamW:
    """AdamW with one learning rate per part of the method.

    Attributes:
        learning_rate: One number for all parts, or a number for each part by name.
        weight_decay: Decoupled weight decay (0 as published).
        betas: Averaging constants.
        epsilon: Added to the denominator.
    """

    learning_rate: float | dict[str, float] = 7e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Refuses rates that are negative or not finite."""
        rates = self.learning_rate if isinstance(self.learning_rate, Mapping) else {"": self.learning_rate}
        for part, rate in rates.items():
            if not math.isfinite(rate) or rate < 0:
                place = "model.optimizer.learning_rate" + (f".{part}" if part else "")
                raise BadInputError(f"{rate} is no learning rate", where=place, expected="a finite number, 0 or more")

        constants = [("weight_decay", self.weight_decay, self.weight_decay >= 0.0)]
        constants += [(f"betas {position}", beta, 0.0 <= beta < 1.0) for position, beta in enumerate(self.betas)]
        constants += [("epsilon", self.epsilon, self.epsilon > 0.0)]
        for name, value, fits in constants:
            if not fits or not math.isfinite(value):
                raise BadInputError(
                    f"{value} does not fit",
                    where=f"model.optimizer.{name.split()[0]}",
                    expected="weight_decay >= 0, 0 <= betas < 1, epsilon > 0",
                )

    def check(self, trained: Sequence[str], possible: Sequence[str]) -> None:
        """Compares rates given by part with the parts a method trains.

        A rate for a component that is switched off is left unused, so that an ablation is one changed argument.

        Args:
            trained: Parts that are trained.
            possible: Parts the method could train.

        Raises:
            BadInputError: If a trained part has no rate, or a rate names a part that cannot be.
        """
        if not isinstance(self.learning_rate, Mapping):
            return
        given = set(self.learning_rate)
        if set(trained) - given or given - set(possible):
            raise BadInputError(
                f"rates for {', '.join(self.learning_rate)}, but the method trains {', '.join(trained) or 'nothing'}",
                where="model.optimizer.learning_rate",
                expected="one number, or one for each trained part",
            )

    def rate_of(self, part: str) -> float:
        """Returns the rate of one part."""
        return self.learning_rate[part] if isinstance(self.learning_rate, Mapping) else self.learning_rate

    def build(self, parts: Mapping[str, list[tuple[str, nn.Parameter]]]) -> optim.AdamW:
        """Returns the optimizer with one parameter group per part, in order."""
        groups = [
            {"params": [parameter for _, parameter in tensors], "lr": self.rate_of(part), "name": part}
            for part, tensors in parts.items()
        ]
        return optim.AdamW(groups, weight_decay=self.weight_decay, betas=self.betas, eps=self.epsilon)


@dataclass
class Schedule:
    """Warm-up, then decay.

    Attributes:
        name: ``cosine`` as the published script requests; ``constant_with_warmup`` is what its
            DeepSpeed file makes of that; ``linear``.
        warmup_ratio: Share of all optimizer steps that the rate rises.
    """

    name: Literal["cosine", "constant_with_warmup", "linear"] = "cosine"
    warmup_ratio: float = 0.03

    def __post_init__(self) -> None:
        """Refuses shares outside 0..1."""
        if not 0.0 <= self.warmup_ratio <= 1.0:
            raise BadInputError(
                f"{self.warmup_ratio} is no share", where="model.schedule.warmup_ratio", expected="0 to 1"
            )

    def build(self, optimizer: optim.Optimizer, total_steps: int) -> "LRScheduler":
        """Returns the library's schedule over ``total_steps`` optimizer steps.

        Its file imports peft, and that bitsandbytes, which takes seconds, warns, and beside a package named ``kernels``
        fetches code from the hub and runs it: nothing here needs either.
        """
        with hidden_module("bitsandbytes"):
            from transformers import get_scheduler

        warmup_steps = math.ceil(self.warmup_ratio * total_steps)
        schedule: LRScheduler = get_scheduler(
            self.name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=total_steps
        )
        return schedule
