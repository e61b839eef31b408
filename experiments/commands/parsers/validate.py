"""``m2pt validate``: loss and answer accuracy on the validation split of the tuned tasks.

Learning rates are chosen by these two numbers, never by the held-out sets.
"""

from experiments.configuration.help import ExperimentVerbParser
from lightning_m2pt.commands.parsers.tuned import add_tuned_flags

EXAMPLES = ("m2pt validate --run outputs/m2pt_base/<run>",)


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("validate", __doc__, EXAMPLES)
    add_tuned_flags(parser, "a tuned run's folder; without it the experiment's untuned model is validated")
    return parser
