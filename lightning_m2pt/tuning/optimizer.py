"""Optimizer and learning-rate schedule as factories: configuration in, torch objects out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.hidden_modules import hidden_module
from lightning_m2pt.tuning.gradient_norm import GradientNorm, mask_of
from lightning_m2pt.tuning.optimizer_by_parts import RULE, WAITS, AdamWByParts
from lightning_m2pt.tuning.prompt_first import KEY, share_behind


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

    def check(self, trained: Sequence[str], possible: Sequence[str], rule: GradientNorm | None = None) -> None:
        """Compares rates given by part with the parts a method trains.

        A rate for a component that is switched off is left unused, so that an ablation is one changed argument.

        Args:
            trained: Parts that are trained.
            possible: Parts the method could train.
            rule: Moves some of the parts at a rate of its own.

        Raises:
            BadInputError: If a trained part has no rate, or a rate names a part that cannot be, or is the rule's; or if
                weights would decay and all parts are the rule's.
        """
        ruled = rule.parts if rule is not None else []
        trained, possible = ([part for part in parts if part not in ruled] for parts in (trained, possible))
        if ruled and not trained and self.weight_decay:
            raise BadInputError(
                f"{self.weight_decay} has no part to work on: model.gradient_norm moves all of them",
                where="model.optimizer.weight_decay",
                expected="0",
            )
        if not isinstance(self.learning_rate, Mapping):
            return
        given = set(self.learning_rate)
        if given & set(ruled):
            raise BadInputError(
                f"{', '.join(sorted(given & set(ruled)))} moves by model.gradient_norm, which has a rate of its own",
                where="model.optimizer.learning_rate",
                expected="rates of the other parts: " + (", ".join(trained) or "none"),
            )
        if set(trained) - given or given - set(possible):
            raise BadInputError(
                f"rates for {', '.join(self.learning_rate)}, but the method trains {', '.join(trained) or 'nothing'}",
                where="model.optimizer.learning_rate",
                expected="one number, or one for each trained part",
            )

    def rate_of(self, part: str) -> float:
        """Returns the rate of one part."""
        return self.learning_rate[part] if isinstance(self.learning_rate, Mapping) else self.learning_rate

    def build(
        self,
        parts: Mapping[str, list[tuple[str, nn.Parameter]]],
        rule: GradientNorm | None = None,
        waiting: Mapping[str, int] | None = None,
    ) -> optim.AdamW:
        """Returns the optimizer with one parameter group per part, in order.

        Args:
            parts: The trained tensors by part, each with its name.
            rule: Moves the parts it names; AdamW moves the others.
            waiting: For some of AdamW's parts, how many steps pass before their first.
        """
        groups: list[dict[str, Any]] = []
        for part, tensors in parts.items():
            trained = [parameter for _, parameter in tensors]
            if rule is not None and part in rule.parts:
                own = {"lr": rule.rate_of(trained), RULE: rule.norm, "weight_decay": 0.0}
            else:
                own = {"lr": self.rate_of(part)}
            if waiting and part in waiting:
                own[WAITS] = waiting[part]
            groups.append({"params": trained, "name": part, **own})
        is_plain = not waiting and all(
            RULE not in group and all(mask_of(each) is None for each in group["params"]) for group in groups
        )
        kind = optim.AdamW if is_plain else AdamWByParts
        return kind(groups, weight_decay=self.weight_decay, betas=self.betas, eps=self.epsilon)


@dataclass
class Schedule:
    """Warm-up, then decay.

    Attributes:
        name: ``cosine`` as the published script requests; ``constant_with_warmup`` is what its
            DeepSpeed file makes of that; ``linear``.
        warmup_ratio: Share of all optimizer steps that the rate rises.
        prompt_first_steps: In so many first steps of the run prompts move alone, at their rates of this schedule. The
            other parts begin behind them, untouched until then, with a warm-up of their own: the schedule of a run of
            the steps that are left.
    """

    name: Literal["cosine", "constant_with_warmup", "linear"] = "cosine"
    warmup_ratio: float = 0.03
    prompt_first_steps: int = 0

    def __post_init__(self) -> None:
        """Refuses shares outside 0..1, and fewer steps than none."""
        if self.prompt_first_steps < 0:
            raise BadInputError(f"{self.prompt_first_steps} is no number of steps", where=KEY, expected="0 or more")
        if not 0.0 <= self.warmup_ratio <= 1.0:
            raise BadInputError(
                f"{self.warmup_ratio} is no share", where="model.schedule.warmup_ratio", expected="0 to 1"
            )

    def build(
        self,
        optimizer: optim.Optimizer,
        total_steps: int,
        own_shares: Mapping[str, Callable[[int], float]] | None = None,
    ) -> LambdaLR:
        """Returns the schedule of all parameter groups over ``total_steps`` optimizer steps.

        Args:
            optimizer: Its groups have names.
            total_steps: Of the run.
            own_shares: For groups by name, what their rate is multiplied by in a step instead, counted from 0.
        """
        shares, common = own_shares or {}, self.share(total_steps)
        behind = common
        if self.prompt_first_steps:
            left = self.share(total_steps - self.prompt_first_steps)
            behind = partial(share_behind, self.prompt_first_steps, left)
        groups = optimizer.param_groups
        return LambdaLR(
            optimizer, [shares.get(each.get("name", ""), behind if WAITS in each else common) for each in groups]
        )

    def share(self, total_steps: int) -> Callable[[int], float]:
        """Returns what a rate is multiplied by in a step, counted from 0: the library's, which has it in a schedule.

        Its file imports peft, and that bitsandbytes, which takes seconds, warns, and beside a package named ``kernels``
        fetches code from the hub and runs it: nothing here needs either.

        Args:
            total_steps: Of the run.
        """
        with hidden_module("bitsandbytes"):
            from transformers import get_scheduler

        warmup_steps = math.ceil(self.warmup_ratio * total_steps)
        nothing = optim.SGD([nn.Parameter(torch.zeros(()))], 0.0)
        schedule: LambdaLR = get_scheduler(
            self.name, nothing, num_warmup_steps=warmup_steps, num_training_steps=total_steps
        )
        share: Callable[[int], float] = schedule.lr_lambdas[0]
        return share
