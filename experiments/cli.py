"""From a configuration file to objects: one parser for every verb that needs an experiment.

LightningCLI reads constructor signatures, so they are the schema. What is coupled is connected here once, after
parsing: the backbone's tokenizer and image transform go to the data modules, the seed to the sample order. No key for
these exists in any YAML, so writing one is an unknown-key error.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from data_modules.base import DataModule
from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from experiments.config_errors import as_bad_input, check_files_first
from experiments.trainer_components import write_enums_as_text
from experiments.trainer_failures import cannot_be_made
from experiments.trainer_surface import check_trainer
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.module import TuningModule


@dataclass
class Experiment:
    """A parsed and connected experiment; no weights are loaded.

    Attributes:
        name: Stem of the experiment's file.
        config: Everything, defaults included, as plain values.
        model: The module with its backbone (configuration only) and method.
        data: What is tuned on, or the one set of ``predict`` and ``test``.
        benchmarks: The evaluation sets of the experiment's file.
        output_root: Folder of all runs.
        seed: Decides prompts, order and dropout.
        save_every_n_steps: Optimizer steps between two checkpoints.
        trainer_values: Arguments of the Trainer as parsed, nothing instantiated.
    """

    name: str
    config: dict[str, Any]
    model: TuningModule
    data: DataModule
    benchmarks: list[BenchmarkDataModule]
    output_root: Path
    seed: int
    save_every_n_steps: int
    trainer_values: Namespace

    @cached_property
    def trainer_config(self) -> dict[str, Any]:
        """Instantiated arguments of the Trainer; only verbs that run one need what a strategy needs.

        Raises:
            EnvironmentFailure: If a strategy, logger or plug-in needs a package or device that is not here.
            BadInputError: If one of them refuses its arguments.
        """
        parser = LightningArgumentParser(parser_mode="omegaconf", exit_on_error=False)
        parser.add_lightning_class_args(Trainer, "trainer")
        try:
            return dict(parser.instantiate(Namespace(trainer=self.trainer_values))["trainer"])
        except (ArgumentError, ImportError, MisconfigurationException, TypeError, ValueError) as error:
            raise cannot_be_made(error, self.config["trainer"]) from error

    def connect(self) -> None:
        """Hands the backbone's tokenizer and image transform to the data modules; needs the tokenizer's files."""
        processor = self.model.backbone.processor()
        for data_module in [self.data, *self.benchmarks]:
            data_module.connect(processor)
        if isinstance(self.data, InstructionDataModule):
            self.data.set_order_seed(self.seed)


class ExperimentCLI(LightningCLI):
    """LightningCLI as a parser: it instantiates model and data, and leaves the Trainer to the verb."""

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(
            TuningModule,
            DataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"parser_mode": "omegaconf", "exit_on_error": False, "allow_abbrev": False},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=arguments,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what stands beside Lightning's own keys."""
        parser.add_argument(
            "--benchmarks", type=list[BenchmarkDataModule], default=[], help="evaluation sets, complete"
        )
        parser.add_argument(
            "--save_every_n_steps", type=PositiveInt, default=50, help="optimizer steps between two checkpoints"
        )
        parser.add_argument("--output_root", type=str, default="outputs", help="folder of all runs")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses without LightningCLI's notice about a second command line."""
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        """Instantiates everything but the Trainer."""
        config = self.config.clone()
        self.trainer_values = config.pop("trainer")
        self.config_init = self.parser.instantiate(config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")


def parse_experiment(arguments: Sequence[str], *, name: str | None = None, was_run: bool = False) -> Experiment:
    """Parses an experiment from command-line words.

    Args:
        arguments: ``--config FILE`` (several allowed; later ones win) and dotted overrides.
        name: Experiment name; None takes the first configuration file's stem.
        was_run: Whether these are the settings of a run there is: how it was trained is not for choice any more.

    Raises:
        BadInputError: If a key, value or combination is wrong; it names file and line, or the command line.
    """
    words, files = list(arguments), config_files(arguments)
    check_files_first(files)
    try:
        cli = ExperimentCLI(words)
    except (ArgumentError, BadInputError, TypeError, ValueError) as error:
        raise as_bad_input(error, files, words) from error
    write_enums_as_text(cli.config)
    config = plain_config(cli.parser.dump(cli.config, format="json", skip_link_targets=False, skip_unset=False))
    experiment = Experiment(
        name=name or (files[0].stem if files else "command_line"),
        config=config,
        model=cli.model,
        data=cli.datamodule,
        benchmarks=list(cli.config_init["benchmarks"]),
        output_root=Path(cli.config_init["output_root"]),
        seed=int(cli.config_init["seed_everything"]),
        save_every_n_steps=int(cli.config_init["save_every_n_steps"]),
        trainer_values=cli.trainer_values,
    )
    try:
        if not was_run:
            check_trainer(config["trainer"])
        experiment.model.check()
    except BadInputError as error:
        raise as_bad_input(error, files, words) from error
    return experiment


def plain_config(dumped: str) -> dict[str, Any]:
    """Returns the dumped configuration as plain values, without the list of files it came from."""
    import json

    config: dict[str, Any] = json.loads(dumped)
    config.pop("config", None)
    return config


def config_files(arguments: Sequence[str]) -> list[Path]:
    """Returns the files given with ``--config`` or ``-c``, in order."""
    files, words = [], list(arguments)
    for position, word in enumerate(words):
        if word in {"--config", "-c"} and position + 1 < len(words):
            files.append(Path(words[position + 1]))
        elif word.startswith("--config="):
            files.append(Path(word.removeprefix("--config=")))
    return files


def split_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Splits a verb's own flags from the experiment's; ``--help`` shows both.

    Args:
        parser: The verb's own flags; made with ``add_help=False``.
        arguments: Everything behind the verb.
    """
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(parser.format_help() + "\nAnd everything an experiment's file may hold:\n\n")
        show_experiment_help(list(arguments))
        raise SystemExit(0)
    own, rest = parser.parse_known_args(list(arguments))
    return own, rest


def show_experiment_help(arguments: list[str]) -> None:
    """Prints jsonargparse's help of all experiment keys."""
    files = [word for file in config_files(arguments) for word in ("--config", str(file))]
    ExperimentCLI([*files, "--help"])
