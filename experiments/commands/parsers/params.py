"""``m2pt params``: what is trained, per part and in percent, counted on the meta device without any weight."""

from pathlib import Path

from experiments.configuration.help import ExperimentVerbParser

EXAMPLES = ("m2pt params --config experiments/m2pt_vicuna7b.yaml",)


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("params", __doc__, EXAMPLES)
    parser.add_argument(
        "--adapter", type=Path, metavar="DIR", help="count an adapter's method in place of the experiment's"
    )
    parser.add_argument(
        "--output", type=Path, help="where to store the table (default: outputs/EXPERIMENT/params.json)"
    )
    return parser
