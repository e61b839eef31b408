"""Callbacks that ask the model while it is tuned, and the strategy under which nobody can."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Callback

from callbacks.attention_maps import AttentionMaps
from callbacks.benchmark_scores import BenchmarkScores
from callbacks.sample_answers import SampleAnswers
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.zero import ZeroStrategy

ASKING = (AttentionMaps, BenchmarkScores, SampleAnswers)


def can_be_asked(strategy: Any) -> bool:
    """Tells whether a model answers while it is tuned.

    DeepSpeed's stage 3 gathers a tensor that is read outside of its module's own pass (a tower's class embedding) in a
    training or validation step alone.
    """
    return not (isinstance(strategy, ZeroStrategy) and strategy.zero_stage_3)


def refuse_what_asks(callbacks: Iterable[Callback], strategy: Any) -> None:
    """Refuses callbacks that ask a model that cannot be asked.

    Raises:
        BadInputError: Naming the first one.
    """
    for callback in callbacks:
        if isinstance(callback, ASKING) and not can_be_asked(strategy):
            raise BadInputError(
                f"{type(callback).__name__} asks the model, and under DeepSpeed's stage 3 it answers once it is tuned",
                where="trainer.callbacks",
                expected="callbacks that do not ask",
                hint="experiments/strategies/fsdp.yaml shares out the base and lets it be asked",
            )
