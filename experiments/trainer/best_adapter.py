"""What a BestAdapter may be told, and what it and an EarlyStopping may wait for."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping

from callbacks.benchmark_scores import BenchmarkScores
from callbacks.best_adapter import SCORE, BestAdapter
from experiments.trainer.components import best_adapters, components, goes_by, is_own, is_own_class
from lightning_m2pt.errors import BadInputError

VALIDATED = ("val/loss", "val/answer_accuracy")


def check_best_adapter(trainer: dict[str, Any]) -> None:
    """Looks at the BestAdapter of a Trainer's settings.

    Args:
        trainer: The settings as plain values, defaults included.

    Raises:
        BadInputError: If there are two, or one goes by a number that nobody logs and no class of the user's own could
            log, or by one of training, which is of a few samples.
    """
    has_own = any(is_own(component) for component in components(trainer.get("callbacks")))
    for number, arguments in enumerate(best_adapters(trainer)):
        monitor = str(arguments.get("monitor"))
        if number:
            raise BadInputError(
                "there are two, and a run has one best adapter", where="trainer.callbacks.BestAdapter", expected="one"
            )
        if monitor not in VALIDATED and not monitor.startswith(SCORE) and not has_own:
            raise BadInputError(
                f"an adapter is not chosen by {monitor!r:.40}",
                where="trainer.callbacks.BestAdapter.monitor",
                expected="val/loss, val/answer_accuracy, or score/SET of a set that BenchmarkScores answers",
            )


def refuse_unmeasured_scores(callbacks: Sequence[Callback]) -> None:
    """Looks whether every score that something goes by is measured while a method is tuned.

    Args:
        callbacks: Those of the experiment.

    Raises:
        BadInputError: If nothing answers a set of that name.
    """
    scores = [callback for callback in callbacks if isinstance(callback, BenchmarkScores)]
    sets = [benchmark.name for callback in scores for benchmark in callback.benchmarks]
    if any(is_own_class(type(callback)) for callback in callbacks):
        return
    for callback in callbacks:
        monitor = callback.monitor if isinstance(callback, BestAdapter | EarlyStopping) else ""
        if monitor.startswith(SCORE) and monitor.removeprefix(SCORE) not in sets:
            raise BadInputError(
                f"{monitor!r:.60} is never measured",
                where=f"trainer.callbacks.{type(callback).__name__}.monitor",
                expected=f"one of {', '.join(SCORE + name for name in sets)}"
                if sets
                else "callbacks.benchmark_scores.BenchmarkScores with that set beside it",
            )


def sets_chosen_by(trainer: dict[str, Any]) -> list[str]:
    """Returns the evaluation sets whose scores decide when a run ends, or which of its adapters is evaluated."""
    evaluates_best = any(arguments.get("evaluated") == "best" for arguments in best_adapters(trainer))
    monitors = [monitor for name, monitor in goes_by(trainer) if name != BestAdapter.__name__ or evaluates_best]
    return sorted({monitor.removeprefix(SCORE) for monitor in monitors if monitor.startswith(SCORE)})
