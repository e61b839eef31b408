"""A Trainer that somebody made for themselves: what it would do to a module's numbers in silence is refused by name.

Whatever ``m2pt fit`` makes passes. What is Lightning's own and right stays as Lightning has it: loggers, callbacks that
watch, validation, clipping, time limits, resuming.
"""

import math

import torch
import torch.distributed
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.zero import ZeroStrategy
from lightning_m2pt.storage.checkpoint_io import FolderCheckpointIO
from lightning_m2pt.tuning.proven_strategies import class_names, refuse_unproven_strategy
from lightning_m2pt.tuning.refused_callbacks import REFUSED_CALLBACKS

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def check_trainer(trainer: Trainer) -> None:
    """Refuses what would train something else than it says, before weights are loaded.

    Raises:
        BadInputError: Naming the first argument of the Trainer, with the reason.
    """
    # Connectors set attributes of a Trainer that type checkers do not know.
    refuse_unproven_strategy(class_names(trainer.strategy))
    if isinstance(trainer.strategy, ZeroStrategy):
        trainer.strategy.check(trainer.precision, trainer.gradient_clip_algorithm)
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise refused("strategy", "it trains in children of this process, which keep the tensors", "ddp, in a script")
    if trainer.precision not in PRECISIONS:
        raise refused(
            "precision",
            f"{trainer.precision} would convert the trained tensors, which stay float32",
            " or ".join(PRECISIONS),
        )
    if trainer.overfit_batches:  # type: ignore[attr-defined]
        raise refused(
            "overfit_batches",
            "every epoch would have other samples",
            "fit of experiments.runs.from_python, which holds them",
        )
    if trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
        raise refused("reload_dataloaders_every_n_epochs", "a new loader would forget where the epoch is", "0")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        reason = next((REFUSED_CALLBACKS[base] for base in type(callback).__mro__ if base in REFUSED_CALLBACKS), None)
        if reason is not None:
            raise refused("callbacks", f"{type(callback).__name__}: {reason[0]}", reason[1])


def refuse_double_on_apple(device: torch.device, dtype_name: str) -> None:
    """Refuses a base in float64 on a GPU that has no float64; torch says so once the weights are moved.

    Args:
        device: Where the module will run.
        dtype_name: Type of the frozen base.

    Raises:
        BadInputError: If it is such a one.
    """
    if device.type == "mps" and dtype_name == "float64":
        raise BadInputError(
            "Apple's GPUs have no float64",
            where="model.backbone.dtype",
            expected="float32 or bfloat16, or accelerator cpu",
        )


def refuse_other_bases(backbone: Backbone) -> None:
    """Compares what the processes of a Trainer build their frozen models from: each reads its own, and nothing is sent.

    Every process has to call it; where they are not connected it does nothing.

    Args:
        backbone: Need not be loaded. Large files are hashed once, and the hash is kept.

    Raises:
        BadInputError: In all of them, if one differs from the first one's.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return
    found = [""] * torch.distributed.get_world_size()
    # A model that is there already may have been made without files; it is there on all ranks or on none.
    torch.distributed.all_gather_object(found, "" if backbone.is_loaded else backbone.fingerprint())
    other = next((rank for rank, each in enumerate(found) if each != found[0]), None)
    if other is not None:
        raise BadInputError(
            f"the frozen model of rank {other} is built from other files than that of rank 0",
            where="model.backbone",
            expected="the same weights, configurations and tokenizer on all nodes",
            hint=f"{found[other]:.24} there, {found[0]:.24} on rank 0",
        )


def write_no_pickles(trainer: Trainer) -> None:
    """Lets a Trainer's checkpoints be folders of safetensors and JSON, unless it was given a plug-in of its own.

    Raises:
        BadInputError: If the plug-in is one of Lightning's that pickle.
    """
    plugin = trainer.strategy.checkpoint_io
    if type(plugin) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = FolderCheckpointIO()
    elif isinstance(plugin, TorchCheckpointIO | AsyncCheckpointIO):
        raise refused("plugins", f"{type(plugin).__name__} writes pickles, and reads them", "no such plug-in")


def refuse_part_of_a_step(trainer: Trainer) -> None:
    """Refuses an epoch that ends inside an optimizer step: it would be made with some of its samples.

    An epoch whose length its loader does not know, infinite here, may end so wherever a step has several batches.

    Raises:
        BadInputError: If one does, or may.
    """
    batches, of_a_step = trainer.num_training_batches, trainer.accumulate_grad_batches
    if of_a_step > 1 and batches % of_a_step:
        ends = f"of {batches:g} batches ends" if math.isfinite(batches) else "of unknown length may end"
        raise refused(
            "limit_train_batches",
            f"an epoch {ends} inside a step of {of_a_step}",
            f"a multiple of {of_a_step}, or no limit",
        )


def refused(argument: str, what: str, instead: str) -> BadInputError:
    """Returns the error about an argument of a Trainer."""
    return BadInputError(what, where=f"trainer.{argument}", expected=instead)
