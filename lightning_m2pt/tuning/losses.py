"""Next-token cross-entropy on answers, as sums: means are taken over a whole optimizer step."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch


@dataclass(frozen=True)
class TaskLoss:
    """Sum of the loss and number of supervised tokens of one task within a batch."""

    task: str
    loss_sum: float
    tokens: int


@dataclass(frozen=True)
class SupervisedRows:
    """The rows that predict an answer token.

    Attributes:
        losses: (N,) float32 cross-entropy of each.
        right: (N,) bool, whether the most likely token is the right one.
        sample: (N,) int64, the row of the batch each belongs to.
        turn: (N,) int64, which of its conversation's answers each belongs to, counted from 0.
    """

    losses: Tensor
    right: Tensor
    sample: Tensor
    turn: Tensor


def supervised_rows(backbone: Backbone, batch: Batch, shortcuts: Shortcuts = Shortcuts()) -> SupervisedRows:  # noqa: B008
    """Computes logits and loss where the next position is supervised, and nowhere else.

    The published class leaves the logits in bf16 for the loss; here they are float32.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        batch: B samples with answers.
        shortcuts: What the forward pass may leave out.
    """
    states, labels = backbone.supervised_states(batch, shortcuts)
    next_labels = labels[:, 1:]
    supervised = next_labels != IGNORED_LABEL
    places = supervised.nonzero(as_tuple=True)  # a GPU is waited for once
    targets = next_labels[places]
    logits = backbone.logits(states)
    wide = logits.to(torch.float32) if logits.dtype in (torch.float16, torch.bfloat16) else logits
    losses = cross_entropy(wide, targets, reduction="none")
    # A turn's answer is one run of supervised positions: at least its question stands between it and the next.
    starts = supervised & ~pad(supervised, (1, 0))[:, :-1]
    turns = starts.cumsum(dim=1)[places] - 1
    return SupervisedRows(losses, wide.argmax(dim=-1) == targets, places[0], turns)


def nothing_of(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Returns 0 with a gradient of zeros for every tensor.

    Without a picture nothing reaches what is trained in front of the tower and in it. DDP waits for every gradient,
    and a step in which one is missing would decay and average it otherwise on one device than on several.
    """
    return torch.stack([parameter.flatten()[:0].sum(dtype=torch.float32) for parameter in parameters]).sum()


def task_losses(batch: Batch, rows: SupervisedRows) -> list[TaskLoss]:
    """Sums the loss by task; a conversation's answers may belong to different tasks.

    Args:
        batch: The micro-batch with the tasks of every sample's turns.
        rows: Its supervised rows.
    """
    totals: dict[str, list[float]] = {}
    places = zip(rows.sample.tolist(), rows.turn.tolist(), rows.losses.detach().tolist(), strict=True)
    for sample, turn, loss in places:
        total = totals.setdefault(batch.tasks[sample][turn], [0.0, 0.0])
        total[0] += loss
        total[1] += 1
    return [TaskLoss(task, loss_sum, int(tokens)) for task, (loss_sum, tokens) in totals.items()]
