"""Lightning's loop counters at an optimizer step's boundary, so that a run goes on there whatever its split of a step.

Lightning counts micro-batches of one device, and restores the numbers of another split as they are: steps are then cut
at the wrong places. It also takes the validation of a checkpoint's step for done, and skips what belongs to the end of
an epoch. Here the counters of a checkpoint are counted anew before Lightning reads them, and set so that everything
that follows the step in an uninterrupted run follows it once more: validation, the hooks of the epoch's end.

The names are Lightning 2.6's own (``loops/training_epoch_loop.py``, ``loops/evaluation_loop.py``).
"""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import RestartStage

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.checkpoint_content import LOOP_STATE
from lightning_m2pt.tuning.sample_order import ResumableLoader

BATCHES, STEPPED = "epoch_loop.batch_progress", "_batches_that_stepped"
EPOCHS, VALIDATED = "epoch_progress", "epoch_loop.val_loop.batch_progress"


def recount_micro_batches(checkpoint: dict[str, Any], micro_batches_per_step: int) -> None:
    """Brings a checkpoint's counters to the split of the run that reads it, in place.

    Only counters of micro-batches depend on the split; how many there were per step follows from their number and that
    of the steps, as every step of a run has the same.

    A Trainer's own callbacks also save at the end of an epoch, after a validation or after the run. Counters then say
    that the epoch is over, while the samples stand at its end: Lightning goes on in the middle of the next one. They
    are set back to the step, and the epoch ends once more.

    Args:
        checkpoint: A state between two optimizer steps.
        micro_batches_per_step: Micro-batches that a device accumulates for one optimizer step now.

    Raises:
        BadInputError: If the counters are not those of whole steps.
    """
    steps, fit_loop = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
    progress = fit_loop[BATCHES]
    per_step, rest = divmod(progress["total"]["processed"], steps)
    steps_of_epoch, rest_of_epoch = divmod(progress["current"]["processed"], max(per_step, 1))
    if rest or rest_of_epoch or not per_step:
        raise mixed_splits(f"{progress['total']['processed']} micro-batches in {steps} steps")
    for period, done in (("total", steps), ("current", steps_of_epoch)):
        # All four alike: Lightning then neither takes the last batch for unfinished nor ends the epoch without its end.
        progress[period] = dict.fromkeys(progress[period], done * micro_batches_per_step)
    fit_loop[LOOP_STATE][STEPPED] = steps
    for counts in fit_loop.get(EPOCHS, {}).values():
        counts["processed"] = counts["completed"] = counts["ready"] - 1
    for counts in fit_loop.get(VALIDATED, {}).values():
        if isinstance(counts, dict):
            counts.update(dict.fromkeys(counts, 0))


def is_before_validation(checkpoint: dict[str, Any]) -> bool:
    """Tells whether a checkpoint was made right after a step, before what follows it; to be asked before it is changed.

    Whatever saves in ``on_train_batch_end`` does. After a validation or an epoch's end nothing of it is made again.
    """
    counts = checkpoint["loops"]["fit_loop"][BATCHES]["total"]
    return bool(counts["completed"] < counts["processed"])


def open_finished_loop(trainer: Trainer) -> None:
    """Lets a run that has made all its steps begin its loop once more; call it once the optimizers are made.

    Lightning leaves such a run at once, and the validation of its last step, which a stop may have cut off, with it.
    The limit is one step more until ``close_finished_loop``, so what follows from the limit has to be known before.
    """
    trainer.fit_loop.epoch_loop.max_steps += 1


def close_finished_loop(trainer: Trainer) -> None:
    """Sets back the limit that ``open_finished_loop`` has raised."""
    trainer.fit_loop.epoch_loop.max_steps -= 1


def repeat_what_follows_the_step(trainer: Trainer) -> bool:
    """Makes a resumed run do what is due after the checkpoint's step; call it in ``on_train_start``, once or twice.

    That is its validation: a checkpoint holds the state before it, and validating once more gives the same numbers,
    while one that a kill cut off would be lost. And it is the end of the epoch.

    Returns:
        Whether a validation follows.

    Raises:
        BadInputError: If the loops and the training loader are at different places of the epoch.
    """
    fit_loop, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    refuse_other_place(trainer)
    fetcher = fit_loop._data_fetcher
    if fetcher is None:
        return False
    if loop._num_ready_batches_reached():
        fetcher.done = True  # a loader that is cut short (limit_train_batches) would give one batch more
    if not loop._should_check_val_fx(fetcher):
        return False
    if loop.val_loop._restart_stage != RestartStage.RESTARTED_MID_EVALUATION:
        loop._batches_that_stepped -= 1  # numbers of the step's validation stand in the step's row
        loop.val_loop.restarting = False
        loop.val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION
        trainer.validating = True
        loop.val_loop.setup_data()
        trainer.training = True
    return not loop.val_loop.skip


def refuse_other_place(trainer: Trainer) -> None:
    """Compares where a resumed run's steps are with where its samples are; call it in ``on_train_start``.

    Raises:
        BadInputError: If the loops and the training loader are at different places of the epoch.
    """
    # A run that is as long as its epochs asks for its loader before the checkpoint is read, to count their steps, and
    # Lightning hands a loader its state when it is made and never again.
    trainer.fit_loop._load_combined_loader_states()
    loader, counted = trainer.train_dataloader, trainer.fit_loop.epoch_loop.batch_progress.current.ready
    if isinstance(loader, ResumableLoader):
        begun, given = trainer.current_epoch, loader.state_micro_batches
        if (loader.state_epoch, given) != (begun, counted):
            raise mixed_splits(
                f"the steps are at micro-batch {counted} of epoch {begun}, "
                f"the samples at micro-batch {given} of epoch {loader.state_epoch}"
            )


def mixed_splits(what: str) -> BadInputError:
    """Returns the error for a checkpoint whose counters contradict each other."""
    return BadInputError(
        what,
        where="checkpoint",
        expected="every step with all its samples",
        hint="an older version resumed this run with another data.micro_batch_size; start it over with --force",
    )
