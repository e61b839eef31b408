"""The training state at an optimizer step's boundary: noted after every step, completed only when it is saved.

Between two steps the trained tensors and the optimizer's moments stand still, so they are not read at the boundary:
where they are shared out over ranks, reading them gathers them. Whatever else a checkpoint holds may move on at once
and is noted by value.

The names are Lightning 2.6's own (``trainer/connectors/checkpoint_connector.py``, ``trainer/call.py``).
"""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer import call

from lightning_m2pt.tuning.rng import rng_state

RNG_KEY = "rng_of_each_rank"
OPTIMIZERS, GROUPS = "optimizer_states", "param_groups"


def noted_state(trainer: Trainer) -> dict[str, Any]:
    """Returns what moves on before the next step: counters, generators, what callbacks and data keep, learning rates.

    Reads no trained tensor and asks no other rank. To be called in ``on_train_batch_end``.
    """
    state: dict[str, Any] = {
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "loops": trainer._checkpoint_connector._get_loops_state_dict(),
        "callbacks": call._call_callbacks_state_dict(trainer),
        "lr_schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        GROUPS: [[settings_of(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers],
        RNG_KEY: rng_state(),
    }
    # A connector sets the attribute, unknown to type checkers.
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if datamodule is not None and (kept := datamodule.state_dict()):
        state[type(datamodule).__qualname__] = kept
    # No validation is under way at a boundary. How many batches the last one had is forgotten by a run that is resumed,
    # so it would tell a resumed run's checkpoints from an uninterrupted one's.
    for counts in state["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"].values():
        if isinstance(counts, dict):
            counts.update(dict.fromkeys(counts, 0))
    return state


def settings_of(group: dict[str, Any]) -> dict[str, Any]:
    """Returns an optimizer's settings for a group of tensors, its learning rate among them."""
    return {key: value for key, value in group.items() if key != "params"}


def completed_state(trainer: Trainer, noted: dict[str, Any]) -> dict[str, Any]:
    """Returns the whole checkpoint of a noted boundary, to be called before the next update; every rank has to.

    Args:
        trainer: Its tensors are still those of the boundary.
        noted: What ``noted_state`` returned there.
    """
    state: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    for optimizer, groups in zip(state[OPTIMIZERS], noted[GROUPS], strict=True):
        for group, settings in zip(optimizer[GROUPS], groups, strict=True):
            group.update(settings)
    return state | {key: value for key, value in noted.items() if key != GROUPS}
