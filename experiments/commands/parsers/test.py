"""``m2pt test``: one evaluation set (``--data``) to a prediction file, and its score."""

from experiments.commands.parsers.predict import answering_parser
from experiments.configuration.help import ExperimentVerbParser


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    return answering_parser("test", __doc__)
