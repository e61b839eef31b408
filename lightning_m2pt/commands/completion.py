"""Runs ``m2pt completion``; its flags and what it is for are in ``parsers``."""

import argparse
import sys
from collections.abc import Sequence

from lightning_m2pt.commands.completion_scripts import SCRIPTS, Context
from lightning_m2pt.commands.parsers.completion import argument_parser
from lightning_m2pt.commands.verbs import VERBS, needs_checkout, parser_of
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.system.checkout import checkout_module, find_checkout

WORDS_OF_EXPERIMENTS = "experiments.configuration.completion_words"


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    sys.stdout.write(SCRIPTS[own.shell]({verb: summary for verb, (_, summary) in VERBS.items()}, contexts()))
    return ExitCode.DONE


def contexts() -> list[Context]:
    """Returns what may follow every verb, and every command inside one."""
    has_checkout = find_checkout() is not None
    experiment: dict[str, list[str]] = {}
    if has_checkout:
        experiment = checkout_module(WORDS_OF_EXPERIMENTS, "m2pt completion").words_of_experiments()
    found: list[Context] = []
    for verb in VERBS:
        if has_checkout or not needs_checkout(verb):
            parser = parser_of(verb)
            found += contexts_of(verb, parser, experiment if parser.takes_settings else {})
    return found


def contexts_of(name: str, parser: argparse.ArgumentParser, more: dict[str, list[str]]) -> list[Context]:
    """Returns the contexts of a parser and of the commands inside it.

    Args:
        name: The words that lead here.
        parser: The flags.
        more: Flags of an experiment, with the values they may have.
    """
    flags: dict[str, list[str]] = {}
    words: list[str] = []
    inside: list[Context] = []
    for action in parser._actions:  # argparse has no other way to its own flags
        choices = [str(choice) for choice in action.choices or ()]
        if isinstance(action, argparse._SubParsersAction):
            for command, chosen in action.choices.items():
                settings = more if getattr(chosen, "takes_settings", False) else {}
                inside += contexts_of(f"{name} {command}", chosen, settings)
        if action.option_strings:
            flags |= {flag: choices for flag in action.option_strings}
        else:
            words += choices
    return [Context(name, tuple(words), {**flags, **(more if not inside else {})}), *inside]
