"""Help of the verbs that read an experiment: their own flags, and what an experiment holds; nothing is imported for it.

``--help`` shows what most people change, and what there is to name. ``--help-all`` shows every key, and
``--KEY.help CLASS`` a class's own: both are read from signatures, which takes the seconds that torch and Lightning take
to import.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from typing_extensions import override

from experiments.configuration import catalogue
from experiments.configuration.catalogue import Entry
from experiments.configuration.early import refuse_wrong_key
from lightning_m2pt.configuration.tree import CLASS_PATH
from lightning_m2pt.system.console import VerbParser
from lightning_m2pt.system.help_width import fitted

FLAGS = (
    ("--config FILE", "an experiment's file; several are put over one another, later ones win"),
    ("--KEY VALUE", "one key, which wins over every file; --benchmarks+=CLASS adds to a list"),
    ("--allow-import PACKAGE", "lets this command's configuration name classes of a package of your own"),
    ("--KEY.help CLASS", "what a class takes, as in --model.method.help lightning_m2pt.methods.m2pt.M2PT"),
)
KEYS = (
    ("seed_everything", "decides prompts, order and dropout"),
    ("model.backbone", "the frozen model: a class, and the files of its parts"),
    ("model.method", "what is trained: a class, and its lengths, layers and places"),
    ("model.optimizer", "AdamW: learning_rate, one number or one for every part of the method, weight_decay, ..."),
    ("model.schedule", "how the learning rate rises and falls"),
    ("model.gradient_norm", "moves parts by steps of fixed length along the gradient: rate or grey_levels, decay, ..."),
    (
        "model.regularisers",
        "terms of the loss about the pictures of a step, a list of classes: --model.regularisers+=CLASS",
    ),
    ("model.shortcuts", "exact savings of the training step; each can be switched off"),
    ("data", "what is tuned on, or the one set of predict and test: a class, and its root, template, batch_size, ..."),
    (
        "benchmarks",
        "evaluation sets, a list of classes; --benchmarks vsr,pope takes these of the file's, "
        "--benchmarks.batch_size 50 changes all of them",
    ),
    (
        "trainer",
        "arguments of Lightning's Trainer: max_steps, max_epochs, devices, num_nodes, strategy, precision, ...",
    ),
    ("save_every_n_steps", "optimizer steps between two checkpoints"),
    ("validate_every_n_steps", "optimizer steps between two validations, over all epochs; the last step is always one"),
    ("output_root", "folder of all runs"),
    ("prompt_text", "a prompt's file, also --prompt-text FILE: words around every question, tuned and evaluated"),
)
OF_A_CLASS = ".help"


class ExperimentVerbParser(VerbParser):
    """The flags of a verb that reads an experiment; words it does not know are the experiment's.

    Args:
        verb: The verb.
        description: What it is for.
        examples: Command lines to show.
    """

    def __init__(self, verb: str, description: str | None, examples: Sequence[str]) -> None:
        super().__init__(
            prog=f"m2pt {verb}",
            usage=f"m2pt {verb} [flags] [--config FILE ...] [--KEY VALUE ...]",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            takes_settings=True,
        )
        self.examples = examples
        self.add_argument("--help-all", action=FullHelp, nargs=0, help="show every key with its type and default")

    @override
    def check(self, words: Sequence[str]) -> None:
        """Looks at the verb's words, and for a mistyped key of the experiment's."""
        own, rest = self.parse_known_args(list(words))
        if getattr(own, "run", None) is None:  # or its configuration comes first
            refuse_wrong_key(rest)

    @override
    def format_help(self) -> str:
        """Returns the verb's own help, what an experiment holds, what there is to name, and examples."""
        shown = "\n".join(["examples:", *(f"  {line}" for line in self.examples)])
        return fitted("\n".join([super().format_help(), overview(), "", shown, ""]))

    # argparse overloads the signature by the namespace that is given; nobody here gives one.
    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the verb's own flags; ``--KEY.help CLASS`` among the others is answered first."""
        words = list(args)
        about = next((place for place, word in enumerate(words) if asks_about_a_class(word)), None)
        if about is not None:
            show_keys(words[about : about + 2])
        return super().parse_known_args(words, namespace)


class FullHelp(argparse.Action):
    """Shows the verb's flags and every key of an experiment, and ends."""

    @override
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Shows both."""
        own = fitted(argparse.ArgumentParser.format_help(parser))
        sys.stdout.write(own + "\nAnd everything an experiment's file may hold:\n\n")
        show_keys(["--help"])


def asks_about_a_class(word: str) -> bool:
    """Tells whether a word is ``--KEY.help``, with or without the class behind a ``=``."""
    return word.startswith("--") and word.partition("=")[0].endswith(OF_A_CLASS)


def show_keys(words: list[str]) -> NoReturn:
    """Shows what the experiment's own parser says of its keys, and ends; imports torch and Lightning.

    Args:
        words: ``--help``, or ``--KEY.help`` with a class.

    Raises:
        BadInputError: If there is no such class.
    """
    from experiments.configuration.cli import show_experiment_help

    show_experiment_help(words)


def overview() -> str:
    """Returns what an experiment's file and the command line may hold, and the names of what comes with the project."""
    evaluated = {entry.name for entry in catalogue.evaluation_sets()}
    tuned = [entry for entry in catalogue.sets() if entry.name not in evaluated]
    parts = [
        *("an experiment's files and keys:", table(FLAGS), ""),
        *("keys, in a file or as --KEY VALUE:", table(KEYS), ""),
        *classes("methods", "model.method", catalogue.methods()),
        *classes("backbones", "model.backbone", catalogue.backbones()),
        *classes("sets to tune on", "data", tuned),
        *classes("sets to evaluate on", "benchmarks", catalogue.evaluation_sets()),
        "experiments that come with the project (experiments/NAME.yaml):",
        "  " + ", ".join(entry.name for entry in catalogue.experiments()),
    ]
    return "\n".join(parts)


def classes(title: str, key: str, entries: Sequence[Entry]) -> list[str]:
    """Returns lines about classes that a key may name."""
    return [f"{title} ({key}.{CLASS_PATH}):", table([(entry.name, entry.about) for entry in entries]), ""]


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Returns names and what they mean, in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}  {about}" for name, about in rows)
