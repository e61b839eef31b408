"""Our own step in a bare loop, rung by rung: from the reference step to all shortcuts.

What Lightning adds on top is measured by ``benchmarks/training/overhead.py``.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.training.peer import Peer
from benchmarks.training.sizes import TrainingSize
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.prompts.attachment import Attachment, InjectionPath
from lightning_m2pt.tuning.losses import supervised_rows


@dataclass(frozen=True)
class Rung:
    """A form of our step.

    Attributes:
        name: What the tables call it.
        path: How prompts get in.
        shortcuts: What is left out.
    """

    name: str
    path: InjectionPath
    shortcuts: Shortcuts = EVERY_ROW


RUNGS = (
    Rung("token path", "token"),
    Rung("prefix path", "prefix"),
    Rung("+ last layer on supervised rows", "prefix", Shortcuts(shared_rows_once=False)),
    Rung("+ shared rows once a batch", "prefix", Shortcuts()),
)
"""Each has all shortcuts of those before. The head sees supervised rows only, and the tower's unused last block is not
computed, in all of them."""
REFERENCE, ALL_SHORTCUTS = RUNGS[0], RUNGS[-1]


def method_of(size: TrainingSize, backbone: OpenClipLlama, *, lm_head: bool = True) -> M2PT:
    """Returns M2PT with the published slice; the head is trained as the published script does."""
    method = M2PT(size.visual_length, size.textual_length, lm_head=lm_head)
    method.build(backbone, torch.Generator().manual_seed(0))
    return method.cpu()  # a template: on a GPU it would count to everybody's memory


def mean_loss(backbone: OpenClipLlama, batch: Batch, rung: Rung) -> Tensor:
    """Returns the mean over the batch's supervised tokens, with whatever is attached."""
    losses = supervised_rows(backbone, batch, rung.shortcuts).losses
    return losses.sum() / batch.step_supervised_tokens


def own_peer(name: str, backbone: OpenClipLlama, method: M2PT, batch: Batch, rung: Rung) -> Peer:
    """Returns our step on one rung, with trained tensors of its own on the shared backbone."""
    own = copy.deepcopy(method).to(backbone.projector.weight.device)
    own.path = rung.path

    def loss() -> Tensor:
        own.attach(backbone)  # rungs take turns on one backbone
        return mean_loss(backbone, batch, rung)

    modules = nn.ModuleList([backbone, own])
    return Peer(name, loss, list(freeze_all_but_declared(modules, own).values()), [modules])


def frozen_loss(backbone: OpenClipLlama, batch: Batch) -> float:
    """Returns the loss of the model with nothing attached."""
    backbone.release_hooks()
    backbone.attachment = Attachment()
    with torch.no_grad():
        return float(mean_loss(backbone, batch, REFERENCE))
