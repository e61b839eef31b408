"""The Trainer and the processes that answer: replicas of the whole model, whatever strategy has tuned it."""

import os
from typing import Any

from lightning.pytorch import Callback, Trainer

from experiments.configuration.cli import Experiment
from experiments.runs.training import check_machine, check_meeting, check_processes
from experiments.trainer.components import refuse_cluster
from experiments.trainer.failures import refusals_named
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.launch import check_node
from lightning_m2pt.system.rank_group import RankGroup, ranks_of_job
from lightning_m2pt.tuning.proven_strategies import configured_names, refuse_unproven_strategy


def answering_trainer(experiment: Experiment, callbacks: list[Callback]) -> Trainer:
    """Returns a Trainer that only answers: on the experiment's devices and nodes, without loggers and checkpoints.

    Every process holds the whole model and takes its share of the questions. The experiment's strategy is one of
    training: it is not made, and what it needs need not be here.

    Raises:
        BadInputError: If devices or nodes are not as a launcher has started them, or are not here.
        EnvironmentFailure: If the accelerator is not here.
    """
    configured: dict[str, Any] = experiment.config["trainer"]
    check_machine(experiment)
    refuse_unproven_strategy(configured_names(configured.get("strategy")))
    places = {
        key: configured[key] for key in ("accelerator", "devices", "num_nodes") if configured.get(key) is not None
    }
    with refusals_named(configured):
        try:
            trainer = Trainer(
                **{"accelerator": "auto", "devices": 1, "num_nodes": 1, **places},
                logger=False,
                use_distributed_sampler=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                callbacks=callbacks,
            )
        except (RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise BadInputError(reason[:200], where="trainer", expected="devices that this machine has") from error
    refuse_cluster(getattr(trainer.strategy, "cluster_environment", None))
    check_processes(experiment, trainer.num_devices, trainer.num_nodes)
    check_node(trainer.num_nodes, os.environ)
    check_meeting(trainer)
    return trainer


def started_ranks(experiment: Experiment) -> RankGroup:
    """Brings together the processes that answer, and starts those that no launcher has started.

    Lightning starts them by the command of this one: they come here by the same way.

    Raises:
        BadInputError: If devices or nodes are wrong.
    """
    strategy = answering_trainer(experiment, []).strategy
    if strategy.launcher is None:
        return RankGroup()
    strategy.launcher.launch(strategy.setup_environment)
    return ranks_of_job()
