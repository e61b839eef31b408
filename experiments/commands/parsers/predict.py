"""``m2pt predict``: one evaluation set (``--data``) to a prediction file."""

from experiments.configuration.help import ExperimentVerbParser
from lightning_m2pt.commands.parsers.tuned import add_output_flag, add_tuned_flags

EXAMPLE = (
    "m2pt {verb} --config experiments/m2pt_base.yaml --data data_modules.mme.MME --data.root data/testbed/mme "
    "--data.template vicuna_v1"
)


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    return answering_parser("predict", __doc__)


def answering_parser(verb: str, description: str | None) -> ExperimentVerbParser:
    """Returns the flags that ``predict`` and ``test`` share."""
    parser = ExperimentVerbParser(verb, description, [EXAMPLE.format(verb=verb)])
    add_tuned_flags(parser, "a tuned run's folder; without it the untouched model answers")
    add_output_flag(parser)
    return parser
