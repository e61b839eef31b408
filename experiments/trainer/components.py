"""What the classes named in a Trainer's settings do to a run: callbacks, plug-ins, loggers, profilers, strategies.

An allow list: what is here is known to be right, or refused with the reason. Classes that nobody here knows, a user's
own, count as acting: the run's name covers them with their arguments.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch import plugins as lightning_plugins
from lightning.pytorch import strategies as lightning_strategies
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.profilers import XLAProfiler

from callbacks.attention_maps import AttentionMaps
from callbacks.benchmark_scores import BenchmarkScores
from callbacks.best_adapter import BestAdapter
from callbacks.prompt_statistics import PromptStatistics
from callbacks.sample_answers import SampleAnswers
from experiments.trainer.described import Described
from experiments.trainer.logger_settings import class_at, refuse_logger_arguments
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.parallel.zero import ZeroStrategy
from lightning_m2pt.tuning.refused_callbacks import REFUSED_CALLBACKS


class Effect(Enum):
    """What a component does to the numbers of a run."""

    ACTS = "the run's name covers it, with its arguments"
    MEASURES = "changes nothing, but what acts may go by what it measures: the name covers it beside one that acts"
    WATCHES = "the run's name does not know it"


EFFECTS: dict[type, Effect] = {
    lightning_callbacks.EarlyStopping: Effect.ACTS,
    BestAdapter: Effect.ACTS,
    BenchmarkScores: Effect.MEASURES,
    AttentionMaps: Effect.WATCHES,
    PromptStatistics: Effect.WATCHES,
    SampleAnswers: Effect.WATCHES,
    lightning_callbacks.DeviceStatsMonitor: Effect.WATCHES,
    lightning_callbacks.LearningRateMonitor: Effect.WATCHES,
    lightning_callbacks.ModelSummary: Effect.WATCHES,
    lightning_callbacks.RichModelSummary: Effect.WATCHES,
    lightning_callbacks.RichProgressBar: Effect.WATCHES,
    lightning_callbacks.TQDMProgressBar: Effect.WATCHES,
    lightning_callbacks.Timer: Effect.WATCHES,  # a TimeLimit takes its place: the run goes on where it stopped
    LightningEnvironment: Effect.WATCHES,
    SLURMEnvironment: Effect.WATCHES,
    TorchElasticEnvironment: Effect.WATCHES,
}
"""What is known to be right, these very classes."""

IS_THERE = ("it is part of every run, and made by the command itself", "the callbacks that are not there already")
NOTHING = ("it does nothing by itself", "a class that is made of it")
OUR_CHECKPOINTS = ("a run's checkpoints are written by its own callback", "--save_every_n_steps")
PRECISION = ("the precision is a setting of the Trainer here", "--trainer.precision, or model.backbone.dtype")

REFUSED: dict[type, tuple[str, str]] = {
    **REFUSED_CALLBACKS,
    lightning_callbacks.BasePredictionWriter: ("a run predicts nothing", "`m2pt predict`, which writes a file"),
    lightning_callbacks.Checkpoint: OUR_CHECKPOINTS,
    lightning_callbacks.LambdaCallback: ("it calls any function by its name", "a class of your own"),
    lightning_callbacks.ThroughputMonitor: ("it takes a function", "the progress bar, which shows samples per second"),
    ClusterEnvironment: ("nobody here knows which of its processes is the first", "torchrun, srun, or no launcher"),
    lightning_plugins.CheckpointIO: OUR_CHECKPOINTS,
    lightning_plugins.LayerSync: ("the frozen models have nothing to synchronise", "no such plug-in"),
    lightning_plugins.Precision: PRECISION,
    XLAProfiler: ("TPUs are not supported", "simple, advanced or pytorch"),
}
"""Classes, with all that are made of them: the reason, and what to use instead."""

REFUSED_AS_THEY_ARE: dict[type, tuple[str, str]] = {
    lightning_callbacks.Callback: NOTHING,
    lightning_callbacks.ProgressBar: NOTHING,
}

STRATEGIES = (
    lightning_strategies.SingleDeviceStrategy,
    lightning_strategies.DDPStrategy,
    lightning_strategies.FSDPStrategy,
    lightning_strategies.ModelParallelStrategy,
    FullyShardedStrategy,
    lightning_strategies.DeepSpeedStrategy,
    ZeroStrategy,
)
CHANGES_GRADIENTS = (
    *("checkpoint_io", "precision_plugin", "plugins"),
    *("ddp_comm_hook", "ddp_comm_state", "ddp_comm_wrapper", "model_averaging_period"),
)
"""Arguments of strategies that change numbers or files, where the run's name does not cover them."""


def components(value: Any) -> list[dict[str, Any]]:
    """Returns the components of a setting that takes one or a list, as class path and arguments."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def write_enums_as_text(config: Namespace) -> None:
    """Puts their values in place of enumerations that classes have as defaults of text (Timer): files hold text.

    Other enumerations go by their names, which the parser writes itself.
    """
    for key, value in vars(config).items():
        if isinstance(value, Enum) and isinstance(value.value, str):
            setattr(config, key, value.value)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Namespace):
                write_enums_as_text(item)


def class_of(component: dict[str, Any]) -> type:
    """Returns a component's class; the parser has imported it already, or it is that of an object."""
    return component.kind if isinstance(component, Described) else class_at(component["class_path"])


def effect_of(component: dict[str, Any]) -> Effect:
    """Returns what a callback or plug-in does to a run."""
    return EFFECTS.get(class_of(component), Effect.ACTS)


def is_own(component: dict[str, Any]) -> bool:
    """Tells whether a class is neither Lightning's nor this project's."""
    return is_own_class(class_of(component))


def is_own_class(found: type) -> bool:
    """Tells whether a class is neither Lightning's nor this project's."""
    return found.__module__.split(".")[0] not in ("lightning", "callbacks")


def refuse_components(trainer: dict[str, Any]) -> None:
    """Refuses the classes that cannot keep a run's word.

    Args:
        trainer: The Trainer's settings as plain values.

    Raises:
        BadInputError: Naming the first one, with the reason and what to use instead.
    """
    for key in ("callbacks", "plugins", "logger", "profiler"):
        for component in components(trainer.get(key)):
            found, name = class_of(component), component["class_path"].rpartition(".")[2]
            bases = [base for base in found.__mro__ if base in REFUSED and found not in EFFECTS]
            reason = REFUSED[bases[0]] if bases else REFUSED_AS_THEY_ARE.get(found)
            if reason is None and found not in EFFECTS and found.__module__.startswith("callbacks."):
                reason = IS_THERE
            if reason is not None:
                raise BadInputError(f"{name}: {reason[0]}", where=f"trainer.{key}", expected=reason[1])
            if found is CSVLogger and component.get("init_args", {}).get("version") is not None:
                raise BadInputError(
                    "a resumed run would empty the table of this version",
                    where="trainer.logger.CSVLogger.version",
                    expected="no version: every start gets the next one",
                    hint="the run's own metrics.csv holds every step once",
                )
            if key == "logger":
                refuse_logger_arguments(found, component)
    refuse_strategy(trainer.get("strategy"))


def refuse_cluster(environment: ClusterEnvironment | None) -> None:
    """Refuses a cluster that Lightning has found by itself and whose first process nobody here would know.

    Raises:
        BadInputError: If it is neither SLURM nor torchrun nor Lightning's own start.
    """
    if environment is not None and type(environment) not in EFFECTS:
        reason, instead = REFUSED[ClusterEnvironment]
        raise BadInputError(f"{type(environment).__name__}: {reason}", where="trainer", expected=instead)


def refuse_strategy(strategy: Any) -> None:
    """Refuses strategies that this project does not know, or whose arguments change numbers.

    Raises:
        BadInputError: Naming the strategy or its argument.
    """
    where = "trainer.strategy"
    if isinstance(strategy, str) and strategy.startswith(("ddp_fork", "ddp_spawn", "ddp_notebook")):
        raise BadInputError(
            f"{strategy} is made for notebooks", where=where, expected="ddp, which starts this command again"
        )
    if isinstance(strategy, str) and ("xla" in strategy or "tpu" in strategy):
        raise BadInputError(f"{strategy}: TPUs are not supported", where=where, expected="auto or ddp")
    for component in components(strategy):
        name, arguments = component["class_path"].rpartition(".")[2], component.get("init_args", {})
        if class_of(component) not in STRATEGIES:
            known = ", ".join(allowed.__name__ for allowed in STRATEGIES)
            raise BadInputError(f"{name} is not known here", where=where, expected=f"a name, or one of {known}")
        if arguments.get("start_method", "popen") != "popen":
            raise BadInputError(
                f"{arguments['start_method']} is made for notebooks",
                where=f"{where}.start_method",
                expected="popen, which starts this command again",
            )
        for key in CHANGES_GRADIENTS:
            if arguments.get(key) is not None:
                raise BadInputError(
                    "this would change numbers or files in silence", where=f"{where}.{key}", expected="null"
                )


def acting_components(trainer: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns the callbacks and plug-ins that a run's name covers, by setting; empty if none acts."""
    named: dict[str, list[dict[str, Any]]] = {}
    for key in ("callbacks", "plugins"):
        effects = [(component, effect_of(component)) for component in components(trainer.get(key))]
        if any(effect is Effect.ACTS for _, effect in effects):
            named[key] = [component for component, effect in effects if effect is not Effect.WATCHES]
    return named


def arguments_of(kind: type, trainer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the arguments of every callback of a class."""
    for component in components(trainer.get("callbacks")):
        if issubclass(class_of(component), kind):
            yield component.get("init_args", {})


def early_stoppings(trainer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the arguments of every EarlyStopping."""
    yield from arguments_of(lightning_callbacks.EarlyStopping, trainer)


def best_adapters(trainer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the arguments of every BestAdapter."""
    yield from arguments_of(BestAdapter, trainer)


def goes_by(trainer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what decides about a run, and the number that it goes by."""
    for name, found in (("EarlyStopping", early_stoppings(trainer)), ("BestAdapter", best_adapters(trainer))):
        for arguments in found:
            yield name, str(arguments.get("monitor"))
