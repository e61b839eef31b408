"""Lightning's limits count micro-batches; a run's count whole optimizer steps, however a step is split."""

from typing import Any

from lightning.pytorch import Trainer

from data_modules.instruction import InstructionDataModule
from experiments.trainer.components import early_stoppings, goes_by
from experiments.trainer.surface import refuse_endless
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.tuning.sample_order import largest_even_part


def limit_epochs(trainer: dict[str, Any], data: InstructionDataModule) -> None:
    """Gives the data module the epochs that ``limit_train_batches`` and ``overfit_batches`` ask for.

    Args:
        trainer: The Trainer's settings as plain values.
        data: What is tuned on; its epochs are cut at the end of a step.

    Raises:
        BadInputError: If a share of the epoch is less than a step.
    """
    overfit, limit = trainer.get("overfit_batches"), trainer.get("limit_train_batches")
    if overfit:
        data.limit_epochs(counted("overfit_batches", overfit, data.steps_in_set()), always_the_same=True)
    elif limit is not None:
        data.limit_epochs(counted("limit_train_batches", limit, data.steps_in_set()), always_the_same=False)


def check_limits(trainer: dict[str, Any], data: InstructionDataModule) -> None:
    """Looks for an end of the run, and for limits that do not fit the set, before a Trainer is made.

    Raises:
        BadInputError: If nothing is to be trained, nothing says until when, a share is less than one, validation would
            never come, or something waits for it in vain.
    """
    refuse_endless(trainer)
    limit_epochs(trainer, data)
    validation_interval(trainer, data)
    samples = len(data.read_once()[1])
    validated = trainer.get("limit_val_batches")
    if validated is not None and validated > 0 and samples:
        counted("limit_val_batches", validated, whole_batches(data))
    if samples and validated != 0:
        return
    for name, monitor in goes_by(trainer):
        if monitor.startswith("val/"):
            raise BadInputError(
                f"{monitor} is never measured: there is no validation",
                where=f"trainer.callbacks.{name}.monitor",
                expected="train/loss, or " * (name == "EarlyStopping") + "data with a validation part",
                hint="data.validation_fraction sets some records aside",
            )
    if any(looks_after_validations(trainer, arguments) for arguments in early_stoppings(trainer)):
        raise BadInputError(
            "with these intervals it looks after validations, and there are none",
            where="trainer.callbacks.EarlyStopping",
            expected="check_on_train_epoch_end: true, or data with a validation part",
        )


def looks_after_validations(trainer: dict[str, Any], arguments: dict[str, Any]) -> bool:
    """Tells whether an EarlyStopping looks after validations, and not at the end of epochs, as Lightning decides it."""
    stated = arguments.get("check_on_train_epoch_end")
    if stated is not None:
        return not stated
    every_epoch = trainer.get("val_check_interval") in (None, 1.0) and trainer.get("check_val_every_n_epoch", 1) == 1
    return not every_epoch


def limit_validation(settings: dict[str, Any], data: InstructionDataModule, trainer: Trainer) -> None:
    """Tells a Trainer how many of its own batches the limits of validation are.

    Args:
        settings: The Trainer's settings as plain values.
        data: What is tuned on.
        trainer: Knows how many micro-batches make a step.
    """
    interval = validation_interval(settings, data)
    trainer.check_val_every_n_epoch = settings.get("check_val_every_n_epoch", trainer.check_val_every_n_epoch)
    if interval is not None:
        trainer.val_check_interval = interval * trainer.accumulate_grad_batches
    data.validation_limit = validation_limit(settings, data)
    if data.validation_limit is not None:
        trainer.limit_val_batches = -(-data.validation_limit // trainer.world_size)


def validation_limit(settings: dict[str, Any], data: InstructionDataModule) -> int | None:
    """Returns how many of the loader's batches ``trainer.limit_val_batches`` leaves of a validation; None is all.

    A batch of validation has as many samples as a micro-batch has on one device; processes share them out.
    """
    limit = settings.get("limit_val_batches")
    if limit is None:
        return None
    batches = counted("limit_val_batches", limit, whole_batches(data)) if limit else 0
    return batches * (data.batch_size // largest_even_part(data.batch_size, data.micro_batch_size))


def steps_of_run(trainer: dict[str, Any], data: InstructionDataModule) -> int:
    """Returns how many optimizer steps a run has, by the first of its ends.

    Args:
        trainer: The Trainer's settings as plain values; one of them ends the run.
        data: What is tuned on, its epochs limited.
    """
    steps, epochs = trainer.get("max_steps"), trainer.get("max_epochs")
    ends = [int(steps)] if steps is not None and steps > 0 else []
    if epochs is not None and epochs > 0:
        ends.append(epochs * data.steps_per_epoch())
    return min(ends)


def whole_batches(data: InstructionDataModule) -> int:
    """Returns how many batches of ``data.batch_size`` samples the validation part has, the last one included."""
    return -(-len(data.read_once()[1]) // data.batch_size)


def validation_interval(settings: dict[str, Any], data: InstructionDataModule) -> int | None:
    """Returns how many optimizer steps lie between two validations; None leaves it to the end of the epoch.

    Raises:
        BadInputError: If an epoch ends before the first.
    """
    interval, steps = settings.get("val_check_interval"), data.steps_per_epoch()
    if interval is None or (isinstance(interval, float) and interval == 1.0):
        return None
    if settings.get("check_val_every_n_epoch", 1) is None:
        if isinstance(interval, float):
            raise BadInputError(
                f"{interval} of an epoch, and epochs do not count",
                where="trainer.val_check_interval",
                expected="a whole number of optimizer steps, or trainer.check_val_every_n_epoch",
            )
    elif interval > steps:
        raise BadInputError(
            f"an epoch has {steps} optimizer steps, and validation would come after {interval}",
            where="trainer.val_check_interval",
            expected=f"at most {steps}",
            hint="--trainer.check_val_every_n_epoch null counts steps over all epochs",
        )
    return counted("val_check_interval", interval, steps) if isinstance(interval, float) else int(interval)


def counted(key: str, value: float, whole: int) -> int:
    """Returns a limit as a number of steps or batches; more than there are is all of them.

    Raises:
        BadInputError: If a share of them is less than one.
    """
    number = int(whole * value) if isinstance(value, float) else min(value, whole)
    if number < 1:
        raise BadInputError(
            f"{value} of {whole} is less than one",
            where=f"trainer.{key}",
            expected=f"at least {1 / max(whole, 1):.3g}, or a whole number",
        )
    return number
