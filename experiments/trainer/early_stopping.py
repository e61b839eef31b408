"""What an EarlyStopping may be told: Lightning takes more, and stops at once, never, or an epoch later in an error."""

import math
from typing import Any

from callbacks.best_adapter import GREATER_IS_BETTER
from experiments.trainer.components import components, early_stoppings, is_own
from lightning_m2pt.errors import BadInputError

METRICS = ("train/loss", "train/gradient_norm", "train/padding", "val/loss", "val/answer_accuracy")
METRICS_BY_PART = ("train/row_norm/", "train/gradient_row_norm/", "train/loss_of_task/", "train/loss_of_set/", "score/")
MODES = ("min", "max")


def check_early_stopping(trainer: dict[str, Any]) -> None:
    """Looks at every EarlyStopping of a Trainer's settings.

    Args:
        trainer: The settings as plain values, defaults included.

    Raises:
        BadInputError: If one counts or compares with what is no number, stops at what gets better, or waits for a
            metric that nobody logs and that no class of the user's own could log.
    """
    for arguments in early_stoppings(trainer):
        monitor, mode, patience = (arguments.get(key) for key in ("monitor", "mode", "patience"))
        has_own = any(is_own(component) for component in components(trainer.get("callbacks")))
        if not has_own and monitor not in METRICS and not str(monitor).startswith(METRICS_BY_PART):
            raise refusal(
                "monitor", f"nothing is logged as {monitor!r:.40}", "train/loss, val/loss or val/answer_accuracy"
            )
        if mode not in (None, *MODES):
            raise refusal("mode", f"{mode!r:.40} does not fit", " or ".join(MODES))
        if mode in (None, "min") and str(monitor).startswith(GREATER_IS_BETTER):
            raise refusal("mode", f"min would stop a run whose {monitor!s:.40} rises", "max")
        if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 0):
            raise refusal("patience", f"{patience!r:.40} does not fit", "a whole number, 0 or more")
        for key in ("min_delta", "stopping_threshold", "divergence_threshold"):
            value = arguments.get(key)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not is_number:
                raise refusal(key, f"{value!r:.40} is no number", "a finite number")


def refusal(key: str, what: str, expected: str) -> BadInputError:
    """Returns the error about an argument."""
    return BadInputError(what, where=f"trainer.callbacks.EarlyStopping.{key}", expected=expected)
