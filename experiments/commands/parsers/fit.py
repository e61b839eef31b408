"""``m2pt fit``: tune a method on an experiment's data; the same command resumes and never repeats what is complete."""

from pathlib import Path

from experiments.configuration.help import ExperimentVerbParser

EXAMPLES = (
    "m2pt fit --config experiments/m2pt_base.yaml",
    "m2pt fit --config experiments/m2pt_vicuna7b.yaml --config experiments/strategies/ddp.yaml",
    "m2pt fit --config experiments/m2pt_base.yaml --trainer.devices 2      two processes; docs/scale.md: launchers",
)


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("fit", __doc__, EXAMPLES)
    parser.add_argument("--force", action="store_true", help="start this run over; its folder is emptied first")
    parser.add_argument("--run", type=Path, help="use this run folder; differing settings are refused by name")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="then do what `m2pt validate` does with the run, on what trainer.limit_val_batches leaves",
    )
    return parser
