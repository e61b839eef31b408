"""What is trained beside the cross-entropy of answers: terms of the loss about the pictures that a step shows."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.tuning.regularisers.seen_pictures import SeenPictures


class Regulariser(nn.Module, ABC):
    """A term of the loss: ``sign * weight`` times its mean over all pictures of an optimizer step.

    The mean is a sum divided by the step's number of pictures, so that it does not matter how a step is split. Numbers
    that decide a run's name are ``deciding``; tensors of its own are frozen, and stay out of checkpoints and adapters.

    Args:
        weight: How much of it counts, above 0.

    Attributes:
        name: What it is logged as: ``train/NAME``.
        sign: 1 where training makes it smaller, -1 where larger.
    """

    name: ClassVar[str]
    sign: ClassVar[int] = 1

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not 0.0 < weight < float("inf"):
            raise BadInputError(
                f"{weight} is no weight of {self.name}",
                where="model.regularisers",
                expected="a finite number above 0; 0 is the line left out",
            )
        self.weight = weight

    def check(self, method: Method, shape: BackboneShape) -> None:
        """Compares it with the method and the backbone; nothing is loaded.

        Raises:
            BadInputError: If the method trains no pixel prompt, without which there is nothing to compare.
        """
        if pixel_prompting(method) is None:
            raise BadInputError(
                f"{self.name} is about pictures with a pixel prompt, and {method.name} trains none",
                where="model.regularisers",
                expected="the method PixelPrompting, by itself or combined with others",
            )

    def check_files(self) -> None:
        """Looks at what training will read, before weights are loaded.

        Raises:
            BadInputError: If something is missing or does not fit.
        """
        return

    def check_processor(self, processor: Processor) -> None:
        """Looks at how pictures are read.

        Raises:
            BadInputError: If they are read in a way that does not fit.
        """
        return

    def check_answers(self, answers: Iterable[str]) -> None:
        """Looks at the answers that will be trained on.

        Args:
            answers: Each once.

        Raises:
            BadInputError: If one cannot be used as it is.
        """
        return

    def build(self, backbone: Backbone) -> None:
        """Reads what it needs, once, before the first step; the backbone is loaded."""
        return

    def before(self, backbone: Backbone, batch: Batch) -> Tensor | None:
        """Does what comes before the forward pass of the loss, and returns what is needed afterwards."""
        return None

    @abstractmethod
    def summed(self, seen: SeenPictures, before: Tensor | None) -> Tensor:
        """Returns the sum over the pictures of a micro-batch, a number with a gradient; 0 where there are none.

        Args:
            seen: The pictures of a micro-batch of at least one.
            before: What ``before`` has returned.
        """

    @abstractmethod
    def deciding(self) -> dict[str, object]:
        """Returns what decides its numbers, as plain values: arguments, and files by their content."""

    def held_bytes(self) -> int:
        """Returns the bytes of what it holds on a device all the time."""
        return 0

    def kept_bytes(self, shape: BackboneShape, pictures: int, rows: int) -> int:
        """Returns the bytes that it keeps for the backward pass of a micro-batch.

        Args:
            shape: The backbone's sizes.
            pictures: Pictures, or tiles, of the micro-batch.
            rows: Their rows in the decoder, of all together.
        """
        return 0


def pixel_prompting(method: Method) -> PixelPrompting | None:
    """Returns the method, or the one among those combined, that trains a pixel prompt."""
    members = method.methods() if isinstance(method, Combined) else [method]
    return next((member for member in members if isinstance(member, PixelPrompting)), None)


def check_regularisers(regularisers: Sequence[Regulariser], method: Method, shape: BackboneShape) -> None:
    """Compares all with the method and the backbone, and with each other.

    Raises:
        BadInputError: If one does not fit, or stands there twice.
    """
    names = [each.name for each in regularisers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInputError(
            f"{twice} is there twice",
            where="model.regularisers",
            expected="each once: its weight adds up, and it is logged under one name",
        )
    for each in regularisers:
        each.check(method, shape)


def refuse_regularisers_where_cut_up(regularisers: Sequence[Regulariser]) -> None:
    """Refuses all where weights, gradients or states are shared out among ranks, which is not tried.

    Raises:
        BadInputError: If there are any.
    """
    if regularisers:
        raise BadInputError(
            f"{regularisers[0].name} is not tried with FSDP2 and DeepSpeed: the tower runs once more",
            where="model.regularisers",
            expected="one device, or ddp",
            hint="experiments/strategies/ddp.yaml",
        )


def wide(values: Tensor) -> Tensor:
    """Returns values in float32 or wider: differences of rows in bfloat16 would be rounding."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
