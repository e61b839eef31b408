"""The interval of validation that is ours: optimizer steps, counted over all epochs, whatever a step is split into."""

from typing import Any

from lightning_m2pt.errors import BadInputError

INTERVAL = "validate_every_n_steps"
"""Setting beside the Trainer's: steps between two validations, counted over all epochs; 0 leaves it to the Trainer."""


def refuse_two_intervals(config: dict[str, Any]) -> None:
    """Refuses an interval of validation of ours beside one of Lightning's.

    Args:
        config: The resolved configuration.

    Raises:
        BadInputError: Naming Lightning's.
    """
    for key, default in (("val_check_interval", 1.0), ("check_val_every_n_epoch", 1)):
        if config.get(INTERVAL) and config["trainer"].get(key, default) not in (None, default):
            raise BadInputError(
                f"{INTERVAL} says already when it is validated", where=f"trainer.{key}", expected="one of the two"
            )


def with_interval(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration's settings of the Trainer, our own interval of validation in the terms of Lightning's."""
    ours = config.get(INTERVAL)
    return config["trainer"] | ({"val_check_interval": ours, "check_val_every_n_epoch": None} if ours else {})
