"""``m2pt templates``: what the words around a question are worth, on the validation split of the tuned tasks.

All texts of a list are measured on the same few samples; the better half goes on to twice as many, until two are left
on all of them. What decides is the loss per supervised token; answer accuracy stands beside it. The best text is
written as a file for ``--prompt-text``. No held-out set is looked at.
"""

from pathlib import Path

from experiments.configuration.help import ExperimentVerbParser
from lightning_m2pt.commands.parsers.counts import whole_number
from lightning_m2pt.commands.parsers.tuned import add_tuned_flags

EXAMPLES = (
    "m2pt templates --texts testbed --config experiments/frozen.yaml --samples 128",
    "m2pt templates --texts mine.yaml --run outputs/m2pt_base/<run>",
)


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("templates", __doc__, EXAMPLES)
    add_tuned_flags(parser, "a tuned run's folder; without it the experiment's untuned model is measured")
    parser.add_argument(
        "--texts",
        required=True,
        metavar="LIST",
        help="a YAML file of names and texts with {question} in them, or a list that comes with the package: general, "
        "testbed",
    )
    parser.add_argument(
        "--samples",
        type=whole_number,
        default=0,
        metavar="N",
        help="samples of the last round (default: all)",
    )
    parser.add_argument(
        "--sample-seed", type=whole_number, default=0, metavar="S", help="decides which samples, and their order"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the best text and all figures go (default: the folder templates of the run or the experiment)",
    )
    return parser
