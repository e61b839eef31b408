"""``m2pt check``: reads configuration, annotations and image headers of an experiment; loads no weights.

All mistakes of all sets are listed, kind by kind. ``--decode`` decodes every picture; without it only those that do not
end as their format does.

With ``--benchmarks all`` or names (``--benchmarks mme,pope``) and no ``--config``: reads the evaluation sets below
``--data.root`` instead and says what was found there, how many questions, and whether that is the official number.
"""

from pathlib import Path

from experiments.configuration.help import ExperimentVerbParser

VERIFY, DECODE = "--verify", "--decode"
EXAMPLES = (
    "m2pt check --config experiments/m2pt_base.yaml",
    "m2pt check --benchmarks mme,pope --data.root data",
)


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("check", __doc__, EXAMPLES)
    parser.add_argument("--benchmarks", metavar="NAMES", help="evaluation sets by name, separated by commas, or all")
    parser.add_argument(DECODE, action="store_true", help="decode every picture, to find the damaged ones")
    parser.add_argument("--data.root", dest="root", type=Path, metavar="DIR", help="folder of the sets' folders")
    parser.add_argument(VERIFY, action="store_true", help="read the weights again, whatever is known of their hashes")
    return parser
