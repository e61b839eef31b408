"""Steps of a fixed length along the gradient, beside AdamW: the rule that prompts in pixel space are trained by.

Wu et al., *Unleashing the Power of Visual Prompting At the Pixel Level*, TMLR 2024 (EVP), whose update Zhang et al.,
*Exploring the Transferability of Visual Prompting for Multimodal Large Language Models*, CVPR 2024 (TVP) take over:
``p <- p - rate * m * g / (|g| + 1e-10)`` with the gradient g of a part, and a mask m of the entries that move.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.pixel_prompting import PIXEL_PROMPT, PixelPrompting
from lightning_m2pt.parallel.units import refused
from lightning_m2pt.prompts.pixel_prompt import MOVES

ADDED_TO_NORM = 1e-10
"""As published: a gradient of zeros moves nothing."""
GREY_LEVELS = 255.0
"""Of one channel of a picture, whose numbers are in [0, 1]."""

Norm = Literal["all", "border"]
Decay = Literal["step", "epoch", "none"]


@dataclass
class GradientNorm:
    """A rule for some parts of a method; all others are AdamW's.

    Attributes:
        rate: Length of a step: the Euclidean norm of what it adds to a part, if all of its gradient is in entries that
            move.
        grey_levels: The same as the root mean square, over the entries that move, of what a step adds, in grey levels
            (1/255) of a picture. One of the two is needed.
        norm: What the gradient is divided by: its norm over ``all`` entries of the part, as published, or over the
            ``border``, the entries that move.
        decay: How the rate falls to zero along a cosine: with every ``step``; with every ``epoch``, as published, so
            that it is constant within one, and a run of one epoch ends at the rate it began with; or ``none``. There is
            no warm-up.
        parts: Parts of the method that the rule moves.
    """

    rate: float | None = None
    grey_levels: float | None = None
    norm: Norm = "all"
    decay: Decay = "step"
    parts: list[str] = field(default_factory=lambda: [PIXEL_PROMPT])

    def __post_init__(self) -> None:
        """Refuses rates that are no lengths, both rates or none, and an empty list of parts."""
        given = {key: value for key in ("rate", "grey_levels") if (value := getattr(self, key)) is not None}
        if len(given) != 1:
            raise BadInputError(
                "rate and grey_levels both say how long a step is" if given else "nothing says how long a step is",
                where="model.gradient_norm",
                expected="one of rate and grey_levels",
            )
        ((key, length),) = given.items()
        if not math.isfinite(length) or length <= 0:
            raise BadInputError(
                f"{length} is no length of a step", where=f"model.gradient_norm.{key}", expected="a finite number > 0"
            )
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise BadInputError(
                f"parts are {self.parts}", where="model.gradient_norm.parts", expected="parts of the method, each once"
            )
        if self.grey_levels is not None and self.parts != [PIXEL_PROMPT]:
            raise BadInputError(
                f"{', '.join(self.parts)} are not colours",
                where="model.gradient_norm.grey_levels",
                expected=f"rate, or parts: [{PIXEL_PROMPT}]",
            )

    def check(self, method: Method) -> None:
        """Compares the parts with those that a method could train; one that is switched off is left unused.

        Raises:
            BadInputError: If a part is none of the method's, or grey levels are asked for of what is no colour.
        """
        possible = method.possible_parts()
        other = next((part for part in self.parts if part not in possible), None)
        if other is not None:
            raise BadInputError(
                f"the method has no part {other!r:.60}",
                where="model.gradient_norm.parts",
                expected="some of " + (", ".join(possible) or "a method's that trains something"),
                hint="--model.gradient_norm null leaves all parts to AdamW",
            )

        members = method.methods() if isinstance(method, Combined) else [method]
        spaces = {member.space for member in members if isinstance(member, PixelPrompting)}
        if self.grey_levels is not None and spaces != {"pixels"}:
            raise BadInputError(
                "the prompt is behind the normalisation, where a grey level is another number in every channel",
                where="model.gradient_norm.grey_levels",
                expected="rate, or space: pixels of the method",
            )

    def rate_of(self, tensors: Sequence[nn.Parameter]) -> float:
        """Returns the length of a step of one part.

        Args:
            tensors: The part's; their masks say how many entries move.
        """
        if self.rate is not None:
            return self.rate
        assert self.grey_levels is not None
        return self.grey_levels / GREY_LEVELS * math.sqrt(sum(count_of_moving(tensor) for tensor in tensors))

    def refuse_under_zero(self) -> None:
        """Refuses DeepSpeed, whose optimizers hold flat pieces of a part, without its masks.

        Raises:
            BadInputError: Always.
        """
        raise refused(
            "model.gradient_norm", "DeepSpeed shares out a part's gradient, and the rule needs all of its norm", "ddp"
        )

    def shares(self, trainer: Trainer, total_steps: int) -> dict[str, Callable[[int], float]]:
        """Returns for each part what its rate is multiplied by in a step, counted from 0.

        Args:
            trainer: Knows how long an epoch is.
            total_steps: Optimizer steps of the run.
        """
        share: Callable[[int], float] = constant
        if self.decay == "step":
            share = partial(cosine, length=total_steps, constant_for=1)
        elif self.decay == "epoch":
            trainer.fit_loop.setup_data()  # with max_steps alone a Trainer would look at its loader later
            of_an_epoch = min(trainer.num_training_batches // trainer.accumulate_grad_batches, total_steps)
            share = partial(cosine, length=math.ceil(total_steps / of_an_epoch), constant_for=int(of_an_epoch))
        return dict.fromkeys(self.parts, share)


def cosine(step: int, length: int, constant_for: int) -> float:
    """Returns the half cosine from 1 to 0 over ``length`` periods of ``constant_for`` steps each."""
    return (1.0 + math.cos(math.pi * min(1.0, step // constant_for / length))) / 2.0


def constant(step: int) -> float:
    """Returns 1."""
    return 1.0


def mask_of(parameter: nn.Parameter) -> Tensor | None:
    """Returns which entries of a trained tensor move (bool, broadcastable to it); None where all do.

    A method sets it as the attribute ``moves`` of the parameter. Entries that stay have a gradient all the same.
    """
    moves: Tensor | None = getattr(parameter, MOVES, None)
    return None if moves is None else moves.to(parameter.device)


def count_of_moving(parameter: nn.Parameter) -> int:
    """Returns how many entries of a trained tensor move."""
    moves = mask_of(parameter)
    return parameter.numel() if moves is None else int(moves.expand(parameter.shape).sum())


def masked(parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    """Returns a gradient with zeros at the entries of its parameter that stay."""
    moves = mask_of(parameter)
    return gradient if moves is None else gradient * moves


@torch.no_grad()
def move(parameters: Sequence[nn.Parameter], rate: float, norm: Norm) -> None:
    """Moves the tensors of one part together by a step of the rule; without a gradient nothing moves.

    Args:
        parameters: The part's tensors with the gradient of the whole optimizer step: averaged over micro-batches and
            ranks before, since the norm of a mean is not the mean of norms.
        rate: Length of the step.
        norm: What the gradient is divided by.
    """
    reached = [(each, each.grad) for each in parameters if each.grad is not None]
    moving = [masked(each, gradient) for each, gradient in reached]
    measured = moving if norm == "border" else [gradient for _, gradient in reached]
    if not measured:
        return
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in measured]))
    for (parameter, _), direction in zip(reached, moving, strict=True):
        parameter.sub_(direction * (rate / (length + ADDED_TO_NORM)))
