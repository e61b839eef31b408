"""``m2pt train``: tune, evaluate and compare with the untouched model; what is complete is not done again."""

from experiments.configuration.help import ExperimentVerbParser

EXAMPLES = (
    "m2pt train --config experiments/m2pt_base.yaml",
    "m2pt train --config experiments/m2pt_base.yaml --model.method.visual_length 0",
    "m2pt train --config experiments/m2pt_base.yaml --seed_everything 1 --trainer.max_steps 100",
)


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("train", __doc__, EXAMPLES)
    parser.add_argument(
        "--force", action="store_true", help="tune and evaluate again; the run's folder is emptied first"
    )
    return parser
