"""What a device holds and what it sends in an optimizer step, by arithmetic, for each way to use several devices.

Collectives are counted as rings send them: of B bytes over N devices, an all-gather makes each device send B (N-1)/N,
a reduce-scatter as much, an all-reduce twice that. FSDP2 gathers a unit's weights before its forward pass, gives them
back after it, and gathers them once more before its backward pass, in which activations are recomputed without a third
time. Frozen weights have no gradient, so nothing of them is reduced. All of that happens for every micro-batch; the
gradients of the trained tensors are exchanged once a step, by DeepSpeed after every micro-batch.

Source of the ring's counts: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in
MPICH", 2005.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

Engine: TypeAlias = Literal["ddp", "fsdp2", "zero2", "zero3"]

FLOAT32 = 4
"""Trained tensors, their gradients and AdamW's moments are float32."""
LIVE_NUMBERS = 10**9
"""DeepSpeed's stage 3 keeps gathered tensors up to so many numbers (``stage3_max_live_parameters``)."""
PREFETCHED_NUMBERS = 5 * 10**7
"""So many of the next modules it gathers at once (``stage3_prefetch_bucket_size``), into room beside that of each."""
REDUCED_NUMBERS = 2**24
"""Gradients that DeepSpeed reduces at once here, in float32: it keeps a buffer of so many during the backward pass."""


@dataclass(frozen=True)
class Unit:
    """Frozen tensors that are gathered together, such as a decoder layer.

    Attributes:
        size: Bytes of the whole.
        has_backward: Whether a gradient goes through it. None goes through an embedding, nor through a tower in which
            nothing is trained.
    """

    size: int
    has_backward: bool = True


@dataclass(frozen=True)
class Model:
    """A frozen base in units, and what is trained.

    Attributes:
        units: In the order in which a forward pass runs them. What no pass runs is no unit and belongs to ``kept``.
        kept: Bytes of the base that every device holds whatever the engine.
        trained: Trained numbers.
        itemsize: Bytes of one number of the base.
    """

    units: tuple[Unit, ...]
    kept: int
    trained: int
    itemsize: int = 2


@dataclass(frozen=True)
class Devices:
    """How many devices share what.

    Attributes:
        engine: Who exchanges what.
        number: All devices.
        sharing: Devices that hold one base together, under ``fsdp2`` and ``zero3``: all, or a node's (HSDP).
    """

    engine: Engine
    number: int
    sharing: int = 1

    def __post_init__(self) -> None:
        if self.number < 1 or self.sharing < 1 or self.number % self.sharing:
            raise ValueError(f"{self.number} devices are no whole number of groups of {self.sharing}")
        if self.sharing > 1 and self.engine in ("ddp", "zero2"):
            raise ValueError(f"under {self.engine} every device holds the whole base")


def all_sharing(engine: Engine, number: int) -> Devices:
    """Returns devices that all hold one base together where the engine shares it out, and each its own elsewhere."""
    return Devices(engine, number, number if engine in ("fsdp2", "zero3") else 1)


@dataclass(frozen=True)
class HeldBytes:
    """Bytes on one device, activations not among them.

    Attributes:
        base: Its share of the frozen base.
        in_flight: Units that are whole for the moment.
        trained: Trained tensors, their gradients and AdamW's moments.
    """

    base: int
    in_flight: int
    trained: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.base + self.in_flight + self.trained


@dataclass(frozen=True)
class SentBytes:
    """Bytes that one device sends in an optimizer step.

    Attributes:
        gathers: For units of the base, and what is trained where that is shared out too.
        reductions: For gradients, and to hand on the tensors that were updated in pieces.
    """

    gathers: int
    reductions: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.gathers + self.reductions


def ring_share(devices: int) -> Fraction:
    """Returns what part of a tensor each device sends in a ring's all-gather: (N-1)/N."""
    return Fraction(devices - 1, devices)


def gathered_bytes(units: Sequence[Unit]) -> int:
    """Returns what is gathered for the passes of a micro-batch.

    While a unit's backward pass runs, the one in front of it is gathered already, even if no gradient reaches it.
    """
    following = [unit.has_backward for unit in [*units, Unit(0, has_backward=False)][1:]]
    again = [unit.size for unit, is_near in zip(units, following, strict=True) if unit.has_backward or is_near]
    return sum(unit.size for unit in units) + sum(again)


def held_bytes(model: Model, devices: Devices) -> HeldBytes:
    """Returns what one device holds.

    FSDP2 has three whole units beside a device's share: the one that computes, the next one, and the buffer it is
    gathered into. DeepSpeed keeps a float32 copy of each trained tensor beside AdamW's moments and shares these three
    out.

    Args:
        model: Base and trained numbers.
        devices: How many, and what they share.
    """
    sizes = [unit.size for unit in model.units]
    in_flight = sum(sorted(sizes)[-2:]) + max(sizes, default=0) if devices.sharing > 1 else 0
    if devices.engine == "zero3" and devices.sharing > 1:
        kept, ahead = (min(sum(sizes), most * model.itemsize) for most in (LIVE_NUMBERS, PREFETCHED_NUMBERS))
        in_flight = kept + ahead + FLOAT32 * REDUCED_NUMBERS
    tensors, state = 2 * FLOAT32 * model.trained, 2 * FLOAT32 * model.trained
    if devices.engine in ("zero2", "zero3"):
        state = -(-3 * FLOAT32 * model.trained // devices.number)
    return HeldBytes(model.kept + -(-sum(sizes) // devices.sharing), in_flight, tensors + state)


def sent_bytes(model: Model, devices: Devices, micro_batches: int = 1) -> SentBytes:
    """Returns what one device sends in an optimizer step.

    Args:
        model: Base and trained numbers.
        devices: How many, and what they share.
        micro_batches: Passes of one device in a step; each gathers the base anew.
    """
    share, ring = ring_share(devices.sharing), ring_share(devices.number)
    passes = gathered_bytes(model.units)
    gradients = FLOAT32 * model.trained
    if devices.engine == "zero3":
        # What is still there from the forward pass is not gathered again. Gradients are reduced into shares after every
        # micro-batch, and the updated tensors gathered once.
        forward = sum(unit.size for unit in model.units)
        passes = forward + max(0, passes - forward - LIVE_NUMBERS * model.itemsize)
        gathers = micro_batches * share * passes + ring * gradients
        return SentBytes(int(gathers), int(micro_batches * ring * gradients))
    reductions = 2 * ring * gradients
    if devices.engine == "zero2":
        # DeepSpeed reduces after every micro-batch; each device updates its part and hands it on.
        reductions = micro_batches * reductions + ring * gradients
    return SentBytes(int(micro_batches * share * passes), int(reductions))
