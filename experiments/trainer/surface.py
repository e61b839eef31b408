"""Every setting of Lightning's Trainer, and what this project does with it: an allow list.

A test compares it with the Trainer's signature, so that a setting that a new Lightning brings is decided here before
anybody can use it.
"""

import math
from enum import Enum
from typing import Any

from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from experiments.trainer.best_adapter import check_best_adapter
from experiments.trainer.components import acting_components, refuse_components
from experiments.trainer.early_stopping import check_early_stopping
from experiments.trainer.interval import INTERVAL
from lightning_m2pt.errors import BadInputError


class Role(Enum):
    """What a setting does here."""

    DECIDES = "it changes numbers: part of every run's name"
    DECIDES_IF_SET = "it changes what is measured: part of the name where it is set"
    DECIDES_IF_SOMETHING_ACTS = "part of the name of a run with a callback that acts"
    BY_CLASS = "part of the name where a class acts that is named in it"
    WATCHES = "it changes no number, or the last bits alone"
    FOLLOWS = "it follows from other settings; setting it is refused"
    REFUSED = "it cannot be kept; setting it is refused with the reason"


ROLES = {
    "accelerator": Role.WATCHES,
    "strategy": Role.WATCHES,
    "devices": Role.WATCHES,
    "num_nodes": Role.WATCHES,
    "precision": Role.DECIDES,
    "logger": Role.WATCHES,
    "callbacks": Role.BY_CLASS,
    "fast_dev_run": Role.REFUSED,
    "max_epochs": Role.DECIDES,
    "min_epochs": Role.DECIDES_IF_SOMETHING_ACTS,
    "max_steps": Role.DECIDES,
    "min_steps": Role.DECIDES_IF_SOMETHING_ACTS,
    "max_time": Role.WATCHES,
    "limit_train_batches": Role.DECIDES,
    "limit_val_batches": Role.DECIDES_IF_SET,
    "limit_test_batches": Role.REFUSED,
    "limit_predict_batches": Role.REFUSED,
    "overfit_batches": Role.DECIDES,
    "val_check_interval": Role.DECIDES_IF_SOMETHING_ACTS,
    "check_val_every_n_epoch": Role.DECIDES_IF_SOMETHING_ACTS,
    "num_sanity_val_steps": Role.FOLLOWS,
    "log_every_n_steps": Role.FOLLOWS,
    "enable_checkpointing": Role.FOLLOWS,
    "enable_progress_bar": Role.WATCHES,
    "enable_model_summary": Role.FOLLOWS,
    "accumulate_grad_batches": Role.FOLLOWS,
    "gradient_clip_val": Role.DECIDES,
    "gradient_clip_algorithm": Role.DECIDES,
    "deterministic": Role.WATCHES,
    "benchmark": Role.WATCHES,
    "inference_mode": Role.REFUSED,
    "use_distributed_sampler": Role.FOLLOWS,
    "profiler": Role.WATCHES,
    "detect_anomaly": Role.WATCHES,
    "barebones": Role.REFUSED,
    "plugins": Role.BY_CLASS,
    "sync_batchnorm": Role.REFUSED,
    "reload_dataloaders_every_n_epochs": Role.REFUSED,
    "default_root_dir": Role.FOLLOWS,
    "enable_autolog_hparams": Role.WATCHES,
    "model_registry": Role.REFUSED,
}

DEFAULTS = {
    "accumulate_grad_batches": 1,
    "barebones": False,
    "check_val_every_n_epoch": 1,
    "fast_dev_run": False,
    "inference_mode": True,
    "reload_dataloaders_every_n_epochs": 0,
    "sync_batchnorm": False,
    "use_distributed_sampler": True,
}
"""The Trainer's defaults of what is compared with them here, but for None."""

OF_EVERY_NAME = (
    "max_epochs",
    "max_steps",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
    "fast_dev_run",  # only ever False: it stays, so that earlier runs keep their names
    "limit_train_batches",
    "overfit_batches",
)

REASONS = {
    "fast_dev_run": ("it cuts a step in half and leaves no tables", "--trainer.max_steps 1, a run like any other"),
    "limit_test_batches": ("answering does not read it", "a set's own limit, as in --data.limit"),
    "limit_predict_batches": ("answering does not read it", "a set's own limit, as in --data.limit"),
    "inference_mode": ("answering always uses it", "true"),
    "barebones": ("it takes away a run's tables and checkpoints", "false"),
    "sync_batchnorm": ("the frozen models have nothing to synchronise", "false"),
    "reload_dataloaders_every_n_epochs": ("a new loader would forget where the epoch is", "0"),
    "model_registry": ("it uploads what is tuned", "a copy of the run's folder adapter/"),
}

PRECISIONS = (None, "32-true", "32", "16-mixed", "16", "bf16-mixed", "bf16")


def check_trainer(trainer: dict[str, Any]) -> None:
    """Refuses what a Trainer would take and a run cannot keep its word with.

    Whether a run ends is left to those that tune: the others need no length.

    Args:
        trainer: The Trainer's settings as plain values, defaults included.

    Raises:
        BadInputError: Naming the first such setting, with the reason.
    """
    refuse_set(trainer)
    refuse_devices(trainer)
    refuse_numbers(trainer)
    refuse_precision(trainer)
    refuse_times(trainer)
    refuse_components(trainer)
    check_early_stopping(trainer)
    check_best_adapter(trainer)


def refuse_set(trainer: dict[str, Any]) -> None:
    """Refuses settings that follow from others, or that cannot be kept, wherever they are set.

    Raises:
        BadInputError: Naming the first one.
    """
    for key, role in ROLES.items():
        if role not in (Role.FOLLOWS, Role.REFUSED) or trainer.get(key) in (None, DEFAULTS.get(key)):
            continue
        if role is Role.FOLLOWS:
            raise BadInputError(
                "this setting follows from others here",
                where=f"trainer.{key}",
                expected="data.batch_size, data.micro_batch_size, devices and --output_root decide it",
                hint="take the line out",
            )
        reason, instead = REASONS[key]
        raise BadInputError(reason, where=f"trainer.{key}", expected=instead, hint="take the line out")
    if trainer.get("logger") is False:
        raise BadInputError(
            "metrics.csv and TensorBoard are part of a run",
            where="trainer.logger",
            expected="a logger beside them, or null",
        )


def refuse_endless(trainer: dict[str, Any]) -> None:
    """Refuses a run that never begins or never ends: its learning rate falls towards a last step.

    Raises:
        BadInputError: If there is no step at all, or nothing says which one is the last.
    """
    steps, epochs = trainer.get("max_steps", -1), trainer.get("max_epochs")
    for key, value in (("max_steps", steps), ("max_epochs", epochs)):
        if value is not None and (value == 0 or value < -1):
            raise BadInputError(
                f"{value} steps of training would be called a tuned model"
                if value == 0
                else f"{value} is no number of steps or epochs",
                where=f"trainer.{key}",
                expected="1 or more, or -1 where the other of max_steps and max_epochs says when it ends",
                hint="`m2pt evaluate` evaluates the untouched model",
            )
    if steps == -1 and epochs in (None, -1):
        raise BadInputError(
            "nothing says when the run ends, and the learning rate falls towards its end",
            where="trainer.max_steps",
            expected="--trainer.max_steps or --trainer.max_epochs",
        )


def refuse_devices(trainer: dict[str, Any]) -> None:
    """Refuses devices and nodes that cannot be counted; a run's name may have to say how many there are.

    Raises:
        BadInputError: If devices are neither a number, nor numbers of devices, nor left open (``auto``, -1).
    """
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes")
    listed = devices.split(",") if isinstance(devices, str) else devices if isinstance(devices, list) else []
    numbers = [str(part).strip() for part in listed if str(part).strip()]
    is_left_open = devices is None or str(devices) in ("auto", "-1")
    is_count = isinstance(devices, int) and not isinstance(devices, bool) and devices > 0
    if not (is_left_open or is_count or (numbers and all(map(str.isdecimal, numbers)) and devices != "0")):
        raise BadInputError(
            f"{devices!r:.40} counts no devices",
            where="trainer.devices",
            expected="how many, 1 or more; which, as in 0,2 or [0]; or auto",
        )
    if nodes is not None and (nodes < 1 or isinstance(nodes, bool)):
        raise BadInputError(f"{nodes} nodes", where="trainer.num_nodes", expected="1 or more")


def refuse_numbers(trainer: dict[str, Any]) -> None:
    """Refuses numbers that are none, and limits that leave nothing to train on.

    Raises:
        BadInputError: Naming the setting.
    """
    for place, value in numbers(trainer, "trainer"):
        if not math.isfinite(value):
            raise BadInputError(f"{value} is no number to train with", where=place, expected="a finite number")
    clip, algorithm = trainer.get("gradient_clip_val"), trainer.get("gradient_clip_algorithm")
    if clip is not None and (clip < 0 or isinstance(clip, bool)):
        raise BadInputError(
            f"{clip} is no length of a gradient",
            where="trainer.gradient_clip_val",
            expected="more than 0; null or 0 clips nothing",
        )
    if algorithm not in (None, "norm", "value"):
        raise BadInputError(
            f"there is no {algorithm!r:.40}", where="trainer.gradient_clip_algorithm", expected="norm or value"
        )
    for key, least in (("min_epochs", 0), ("min_steps", 0), ("check_val_every_n_epoch", 1)):
        count = trainer.get(key)
        if count is not None and (count < least or isinstance(count, bool)):
            raise BadInputError(f"{count} does not fit", where=f"trainer.{key}", expected=f"{least} or more, or null")
    for key in ("limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval"):
        refuse_share(key, trainer.get(key))
    if trainer.get("overfit_batches") and trainer.get("limit_train_batches") is not None:
        raise BadInputError(
            "overfit_batches says already how many steps an epoch has",
            where="trainer.limit_train_batches",
            expected="one of the two",
        )


def refuse_share(key: str, value: Any) -> None:
    """Refuses a limit that is neither a count nor a share, or that leaves nothing.

    Raises:
        BadInputError: Naming the setting.
    """
    if value is None or isinstance(value, str | dict):
        return
    may_be_nothing = key in ("limit_val_batches", "overfit_batches")
    fits = not isinstance(value, bool) and (value > 0 or (value == 0 and may_be_nothing))
    if not fits or (isinstance(value, float) and value > 1.0):
        raise BadInputError(
            f"{value} is neither a count nor a share",
            where=f"trainer.{key}",
            expected=f"a whole number of optimizer steps, {0 if may_be_nothing else 1} or more, or a share up to 1.0"
            if key != "limit_val_batches"
            else "a whole number of batches of data.batch_size samples, or a share from 0.0 to 1.0",
            hint="" if may_be_nothing or value else "`m2pt evaluate` evaluates the untouched model",
        )


def numbers(value: Any, place: str) -> list[tuple[str, float]]:
    """Returns every floating-point number of a setting with its place, the arguments of components left in."""
    if isinstance(value, float):
        return [(place, value)]
    if isinstance(value, dict):
        return [
            found
            for key, item in value.items()
            for found in numbers(item, place if key == "init_args" else f"{place}.{key}")
        ]
    if isinstance(value, list):
        return [found for item in value for found in numbers(item, place)]
    return []


def refuse_precision(trainer: dict[str, Any]) -> None:
    """Refuses precisions that convert the trained tensors, are not proven here, or become another one in silence.

    Raises:
        BadInputError: Naming the precision.
    """
    precision = trainer.get("precision")
    if str(precision or "32-true") not in PRECISIONS:
        raise BadInputError(
            f"{precision} would convert the trained tensors, which stay float32, or is not supported",
            where="trainer.precision",
            expected="32-true, bf16-mixed or 16-mixed",
            hint="model.backbone.dtype sets the frozen base's type",
        )
    if str(precision) in ("16", "16-mixed") and trainer.get("accelerator") == "cpu":
        raise BadInputError(
            f"a CPU has no {precision}; Lightning would take bf16-mixed without a word",
            where="trainer.precision",
            expected="bf16-mixed or 32-true on a CPU",
        )


def refuse_times(trainer: dict[str, Any]) -> None:
    """Refuses validation by the clock, and time limits and profilers that are none.

    Raises:
        BadInputError: If a run's numbers would depend on how fast the machine is, or a limit cannot be read.
    """
    if isinstance(trainer.get("val_check_interval"), str | dict):
        raise BadInputError(
            "what is measured would depend on how fast this machine is",
            where="trainer.val_check_interval",
            expected="a whole number of optimizer steps, or a share of an epoch",
        )
    profiler = trainer.get("profiler")
    if isinstance(profiler, str) and profiler.lower() not in ("simple", "advanced", "pytorch"):
        raise BadInputError(
            f"there is no {profiler!r:.40}", where="trainer.profiler", expected="simple, advanced or pytorch"
        )
    limit = trainer.get("max_time")
    if limit is not None:
        try:
            seconds = Timer(duration=limit)._duration
        except (MisconfigurationException, TypeError, ValueError, OverflowError):
            seconds = None
        if seconds is None or seconds < 0:
            raise BadInputError(
                f"{limit!r:.60} is no length of time",
                where="trainer.max_time",
                expected="DD:HH:MM:SS, as in 00:11:30:00 for eleven hours and a half",
            )


def deciding_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the Trainer's settings that a run's name covers.

    Limits count whole optimizer steps. Earlier versions counted micro-batches, which are the same where a step is not
    split; where it is, the name says what is counted, so that their runs are not taken for these.

    Args:
        config: The resolved configuration.
    """
    trainer = config["trainer"]
    named = {key: trainer.get(key) for key in OF_EVERY_NAME}
    if named["limit_train_batches"] is not None and config["data"].get("init_args", {}).get("micro_batch_size"):
        named["limit_train_batches"] = {"of_optimizer_steps": named["limit_train_batches"]}
    limit = trainer.get("limit_val_batches")
    if limit and not (isinstance(limit, float) and limit == 1.0):
        named["limit_val_batches"] = limit
    acts = acting_components(trainer)
    if acts:
        conditional = [key for key, role in ROLES.items() if role is Role.DECIDES_IF_SOMETHING_ACTS]
        set_here = {key: trainer.get(key) for key in conditional}
        named |= acts | {key: value for key, value in set_here.items() if value != DEFAULTS.get(key)}
        named |= {INTERVAL: config[INTERVAL]} if config.get(INTERVAL) else {}
    return named


def split_decides(config: dict[str, Any]) -> bool:
    """Tells whether a run's numbers depend on how its steps are split into micro-batches and devices.

    So they do with the published script's means of means, and with dropout: every micro-batch draws masks of its own.
    """
    return config["model"]["loss_average"] == "micro_batch" or drops_out(config["model"]["method"])


def drops_out(value: Any) -> bool:
    """Tells whether a method, or one of a combination, has dropout."""
    if isinstance(value, dict):
        return any(
            (key.endswith("dropout") and isinstance(item, int | float) and item > 0) or drops_out(item)
            for key, item in value.items()
        )
    return isinstance(value, list) and any(map(drops_out, value))


def configured_processes(trainer: dict[str, Any]) -> int:
    """Returns how many processes the settings name; 1 where they leave it open."""
    listed = configured_devices(trainer)
    count = len(listed) if isinstance(listed, list) else listed or 1
    return count * (trainer.get("num_nodes") or 1)


def configured_devices(trainer: dict[str, Any]) -> int | list[str] | None:
    """Returns how many devices of a node the settings name, or which ones; None where they leave it open."""
    devices = trainer.get("devices")
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        listed = [part.strip() for part in devices.split(",") if part.strip()]
        devices = listed if len(listed) > 1 or devices.endswith(",") else int(devices)
    if isinstance(devices, list):
        return [str(device) for device in devices]
    return devices if isinstance(devices, int) and devices > 0 else None
