"""All peers of one cell, on the same weights and the same batch, their losses compared before anything is timed."""

from dataclasses import dataclass

from benchmarks.training import own_step, peft_steps
from benchmarks.training.inputs import batch_of, random_backbone
from benchmarks.training.peer import Peer
from benchmarks.training.published_step import published_peer
from benchmarks.training.sizes import TrainingSize
from benchmarks.training.step_counters import Counts, counts_of

TOLERANCE = 1e-5
"""Relative, in float32."""
LARGE_RANK = 64
PUBLISHED, EAGER, CHARITABLE = "P0: as published", "P0 without recompute", "P0': and fused attention"
HEAD_FROZEN = "all shortcuts, head frozen"
PREFIX = "P2: prefix tuning"


class UnequalLossesError(RuntimeError):
    """Two peers do not compute the same loss: times would compare different work."""


@dataclass
class Cell:
    """The peers of one size.

    Attributes:
        size: Of model, prompts and batch.
        same_loss: Peers that must have one loss: the published step's forms and our rungs. They train the same tensors.
        other: Peers that train something else.
        frozen_losses: The untouched model's loss, by whose code computed it.
    """

    size: TrainingSize
    same_loss: list[Peer]
    other: list[Peer]
    frozen_losses: dict[str, float]

    @property
    def peers(self) -> list[Peer]:
        """All of them."""
        return self.same_loss + self.other

    def checked_counts(self) -> dict[str, Counts]:
        """Returns what every peer costs without a clock, if their losses allow to time them.

        Raises:
            UnequalLossesError: If losses that must be equal are not, to ``TOLERANCE``.
        """
        counts = {peer.name: counts_of(peer) for peer in self.peers}
        require_equal({peer.name: counts[peer.name].loss for peer in self.same_loss})
        require_equal(self.frozen_losses)
        return counts


def lora_name(rank: int) -> str:
    """Returns what the tables call LoRA of a rank."""
    return f"P1: LoRA, r = {rank}"


def require_equal(losses: dict[str, float]) -> None:
    """Raises UnequalLossesError if one loss is further from the first than ``TOLERANCE``."""
    (first, expected), *others = losses.items()
    for name, loss in others:
        if not abs(loss - expected) <= TOLERANCE * abs(expected):
            raise UnequalLossesError(f"{name}: {loss!r}, but {first}: {expected!r}")


def cell_of(size: TrainingSize, *, with_lora: bool = True) -> Cell:
    """Builds the peers.

    Args:
        size: Of model, prompts and batch.
        with_lora: LoRA does not depend on the prompts: where only these change, it need not be measured again.
    """
    backbone, batch = random_backbone(size), batch_of(size)
    method = own_step.method_of(size, backbone)
    same = [
        published_peer(PUBLISHED, backbone, method, batch, recompute=True, attention="eager"),
        published_peer(EAGER, backbone, method, batch, recompute=False, attention="eager"),
        published_peer(CHARITABLE, backbone, method, batch, recompute=False, attention="sdpa"),
        *(own_step.own_peer(rung.name, backbone, method, batch, rung) for rung in own_step.RUNGS),
    ]
    bare = own_step.method_of(size, backbone, lm_head=False)
    other = [own_step.own_peer(HEAD_FROZEN, backbone, bare, batch, own_step.ALL_SHORTCUTS)]
    inputs = peft_steps.llava_inputs(batch, size.patches)
    models = {PREFIX: peft_steps.prefix_model(backbone, size.textual_length)}
    if with_lora:
        rank = peft_steps.rank_for(backbone, other[0].trained_numbers)
        models |= {lora_name(each): peft_steps.lora_model(backbone, each) for each in (rank, LARGE_RANK)}
    frozen = {"ours": own_step.frozen_loss(backbone, batch)}
    for name, model in models.items():
        frozen[name] = peft_steps.frozen_loss(model, inputs)
        other.append(peft_steps.peft_peer(name, model, inputs))
    return Cell(size, same, other, frozen)
