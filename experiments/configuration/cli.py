"""From a configuration file to objects: one parser for every verb that needs an experiment.

Files and words are composed to one tree of plain values, checked and interpolated; LightningCLI then reads
constructor signatures, so they are the schema. What is coupled is connected here once, after parsing: the backbone's
tokenizer and image transform go to the data modules, the seed to the sample order. No key for these exists in any
YAML, so writing one is an unknown-key error.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentError, Namespace
from jsonargparse.typing import (
    NonNegativeInt,
    PositiveInt,
    register_type,
    restricted_number_type,
    timedelta_deserializer,
)
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.logger_guards import generators_of_its_own
from data_modules.base import DataModule
from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from experiments.configuration.chosen_sets import choose_benchmarks, split_off_names
from experiments.configuration.composition import check_names, compose, read_words
from experiments.configuration.environment import refuse_trainer_variables
from experiments.configuration.errors import as_bad_input, check_top_level
from experiments.configuration.parts import experiment_file, read_sources
from experiments.configuration.path_settings import absolute_paths, paths_beside_files
from experiments.configuration.prompt_texts import put_words
from experiments.configuration.schema import accepted_names, check_nulls
from experiments.configuration.stored_description import keep_schema
from experiments.configuration.values import check_read, check_values, keep_whole_numbers
from experiments.trainer.components import write_enums_as_text
from experiments.trainer.failures import cannot_be_made
from experiments.trainer.interval import INTERVAL, refuse_two_intervals
from experiments.trainer.surface import check_trainer
from lightning_m2pt.configuration.allowed_imports import (
    check_class_paths,
    check_opened,
    is_allowed,
    only_allowed_imports,
    refuse_functions,
)
from lightning_m2pt.configuration.interpolation import interpolated
from lightning_m2pt.configuration.parser_settings import PARSER
from lightning_m2pt.configuration.tree import PROMPT_TEXT
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.template_notices import say_notices
from lightning_m2pt.tuning.module import TuningModule


def time_as_text(value: Any) -> str:
    """Returns a length of time as the parser reads it; its own form would also make text of ``{hours: 1}``.

    Raises:
        ValueError: If the value is no ``timedelta``: another of the types that a setting takes is asked next.
    """
    if not isinstance(value, timedelta):
        raise ValueError(f"{value!r:.40} is no length of time")
    return str(value)


register_type(timedelta, time_as_text, timedelta_deserializer)
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<=", 2**32 - 1)])


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
        opened: Packages that ``--allow-import`` has opened.
        trainer_objects: Arguments of the Trainer that Python handed over as objects.
        is_of_objects: Whether Python handed everything over: the configuration then only describes it.
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
    opened: tuple[str, ...] = ()
    trainer_objects: Mapping[str, Any] = field(default_factory=dict)
    is_of_objects: bool = False

    @cached_property
    def trainer_config(self) -> dict[str, Any]:
        """Instantiated arguments of the Trainer but loggers; only verbs that run one need what a strategy needs.

        Raises:
            EnvironmentFailure: If a strategy or plug-in needs a package or device that is not here.
            BadInputError: If one of them refuses its arguments.
        """
        values = Namespace({key: value for key, value in vars(self.trainer_values).items() if key != "logger"})
        return self._instantiated(values) | {key: made for key, made in self.trainer_objects.items() if key != "logger"}

    @cached_property
    def loggers(self) -> Any:
        """The Trainer's ``logger``, instantiated: only a training logs, and some begin a run elsewhere when made.

        Raises:
            EnvironmentFailure: If one needs a package that is not here.
            BadInputError: If one refuses its arguments.
        """
        if "logger" in self.trainer_objects:
            return self.trainer_objects["logger"]
        with generators_of_its_own():
            return self._instantiated(Namespace(logger=self.trainer_values.get("logger")))["logger"]

    def _instantiated(self, values: Namespace) -> dict[str, Any]:
        parser = ExperimentParser(**PARSER)
        parser.add_lightning_class_args(Trainer, "trainer")
        try:
            with only_allowed_imports(self.opened):
                return dict(parser.instantiate(Namespace(trainer=values))["trainer"])
        except (ArgumentError, ImportError, MisconfigurationException, TypeError, ValueError) as error:
            raise cannot_be_made(error, self.config["trainer"]) from error

    def connect(self) -> None:
        """Hands the backbone's tokenizer and image transform to the data modules; needs the tokenizer's files."""
        processor = self.model.backbone.processor()
        for data_module in [self.data, *self.benchmarks]:
            data_module.connect(processor, self.model.backbone)
        say_notices(processor, [data_module.template for data_module in [self.data, *self.benchmarks]])
        if isinstance(self.data, InstructionDataModule):
            self.data.set_order_seed(self.seed)


class ExperimentParser(LightningArgumentParser):
    """Lightning's parser without files inside files: a word is never the name of a file that lies about."""

    def add_lightning_class_args(
        self, lightning_class: Any, nested_key: str, subclass_mode: bool = False, required: bool = True
    ) -> list[str]:
        """Adds a class's arguments."""
        if subclass_mode:
            return self.add_subclass_arguments(lightning_class, nested_key, fail_untyped=False, required=required)
        instantiates = lightning_class is not Trainer
        return self.add_class_arguments(lightning_class, nested_key, fail_untyped=False, instantiate=instantiates)


class ExperimentCLI(LightningCLI):
    """LightningCLI as a parser: it instantiates model and data, and leaves the Trainer to the verb.

    Args:
        arguments: A composed tree of plain values; or words, which only show help.
    """

    def __init__(self, arguments: dict[str, Any] | list[str]) -> None:
        super().__init__(
            TuningModule,
            DataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={**PARSER, "allow_abbrev": False},
            parser_class=ExperimentParser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=arguments,
            run=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the seed; Lightning would also take true for any seed and false for none."""
        parser.add_argument("--seed_everything", type=Seed, default=0, help="decides prompts, order and dropout")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what stands beside Lightning's own keys."""
        parser.add_argument(
            "--benchmarks", type=list[BenchmarkDataModule], default=[], help="evaluation sets, complete"
        )
        parser.add_argument(
            "--save_every_n_steps", type=PositiveInt, default=50, help="optimizer steps between two checkpoints"
        )
        parser.add_argument(
            "--validate_every_n_steps",
            type=NonNegativeInt,
            default=0,
            help="optimizer steps between two validations, over all epochs; 0 leaves it to the trainer",
        )
        parser.add_argument(f"--{PROMPT_TEXT}", type=str | None, default=None, help="words around every question")
        parser.add_argument("--output_root", type=str, default="outputs", help="folder of all runs")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses without LightningCLI's notice about a second command line, and without ``PL_...`` variables."""
        self.config = parser.parse_args(args) if isinstance(args, list) else parser.parse_object(args, env=False)
        refuse_functions(self.config)
        if isinstance(args, dict):
            keep_whole_numbers(args, self.config)

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
        arguments: ``--config FILE`` (several allowed; later ones win), dotted overrides, which win over every file,
            and ``--allow-import PACKAGE``. ``--benchmarks NAMES`` leaves the named ones of the evaluation sets.
        name: Experiment name; None takes the first configuration file's stem.
        was_run: Whether these are the settings of a run there is: how it was trained is not for choice any more.

    Raises:
        BadInputError: If a key, value or combination is wrong; it names file and line, or the command line.
    """
    keep_schema()
    refuse_trainer_variables(os.environ)
    names, words = split_off_names(arguments)
    command = read_words(words)
    sources = read_sources(command, was_run=was_run)
    try:
        check_opened(command.opened)
        tree = compose(sources.trees, sources.settings, accepts=partial(accepts, command.opened))
        check_top_level(tree)
        check_names(tree)
        check_class_paths(tree, command.opened)
        tree = interpolated(paths_beside_files(tree, command.opened))
        check_class_paths(tree, command.opened)
        check_values(tree)
        check_nulls(tree)
        tree = absolute_paths(tree, command.opened)
        with only_allowed_imports(command.opened):
            cli = ExperimentCLI(tree)
            check_read(tree, cli.config)
            write_enums_as_text(cli.config)
            config = cli.parser.dump(cli.config, format="json", skip_link_targets=False, skip_unset=False)
        resolved = plain_config(config)
        keep_whole_numbers(tree, resolved)
        experiment = Experiment(
            name=name or (experiment_file(command.files[0]).stem if command.files else "command_line"),
            config=resolved,
            model=cli.model,
            data=cli.datamodule,
            benchmarks=list(cli.config_init["benchmarks"]),
            output_root=Path(cli.config_init["output_root"]),
            seed=int(cli.config_init["seed_everything"]),
            save_every_n_steps=int(cli.config_init["save_every_n_steps"]),
            trainer_values=cli.trainer_values,
            opened=command.opened,
        )
        if not was_run:
            check_trainer(experiment.config["trainer"])
            refuse_two_intervals(experiment.config)
        experiment.model.check()
        refuse_same_names(experiment.benchmarks)
        put_words(resolved, resolved.get(PROMPT_TEXT), [experiment.data, *experiment.benchmarks])
        choose_benchmarks(experiment, names)
    except (ArgumentError, BadInputError, TypeError, ValueError) as error:
        raise as_bad_input(error, sources.written, words) from error
    return experiment


def refuse_same_names(benchmarks: Sequence[BenchmarkDataModule]) -> None:
    """Looks for two evaluation sets of one name, of which one would take the other's place.

    Raises:
        BadInputError: Naming the first.
    """
    names = [benchmark.name for benchmark in benchmarks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInputError(
            f"the set {twice!r:.40} is there twice",
            where="benchmarks",
            expected="every set once: predictions and scores go by its name",
            hint="another template or limit is another evaluation: m2pt evaluate --run DIR --benchmarks '[...]'",
        )


def accepts(opened: Sequence[str], class_path: str, name: str) -> bool:
    """Tells whether an allowed class takes an argument of a name; unknown classes are left to the parser."""
    return is_allowed(class_path, opened) and name in accepted_names("benchmarks", class_path)


def plain_config(dumped: str) -> dict[str, Any]:
    """Returns the dumped configuration as plain values, without the list of files it came from."""
    import json

    config: dict[str, Any] = json.loads(dumped)
    config.pop("config", None)
    if not config.get(INTERVAL):
        config.pop(INTERVAL, None)  # configurations of before are what they were
    return config


def show_experiment_help(words: list[str]) -> NoReturn:
    """Prints jsonargparse's help of all experiment keys, or of a class with ``--KEY.help CLASS``.

    Raises:
        BadInputError: If there is no such class.
    """
    try:
        with only_allowed_imports(()):
            ExperimentCLI(words)
    except (ArgumentError, TypeError, ValueError) as error:
        raise as_bad_input(error, [], words) from error
    raise SystemExit(0)
