"""``m2pt evaluate``: answer and score every benchmark of an experiment, or of a tuned run.

With ``--run DIR`` the run's adapter answers, with ``--adapter DIR`` one that stands by itself, on the base and sets of
``--config``; ``--knock-out PART`` leaves a component out. With ``--config`` alone the experiment's own run answers if
it was tuned, and the untouched model if its method trains nothing. An evaluation that was cut off goes on where it
stopped. ``--trainer.devices N`` shares the questions out among N devices; with ``--run`` it is one if none is given.
"""

from pathlib import Path

from experiments.configuration.help import ExperimentVerbParser
from lightning_m2pt.commands.parsers.tuned import add_output_flag, add_tuned_flags

EXAMPLES = (
    "m2pt evaluate --run outputs/m2pt_base/<run> --knock-out visual_prompts",
    "m2pt evaluate --config experiments/frozen.yaml --benchmarks mme,pope",
)
ANSWERING_METHODS = ("greedy", "likelihood_sum", "likelihood_mean")
"""As ``AnsweringMethod``, whose module needs torch."""


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("evaluate", __doc__, EXAMPLES)
    add_tuned_flags(parser, "a tuned run's folder")
    add_output_flag(parser)
    parser.add_argument(
        "--benchmarks",
        metavar="NAMES",
        help="which of the experiment's sets, such as mme,pope,vsr (default: all); or the whole list, as a "
        "YAML file or as JSON",
    )
    parser.add_argument("--data.root", dest="data_root", type=Path, metavar="DIR", help="sets are in DIR/<name>")
    parser.add_argument(
        "--knock-out",
        nargs="+",
        default=[],
        metavar="PART",
        help="visual_prompts, textual_prompts, interaction, lm_head",
    )
    parser.add_argument(
        "--answer",
        choices=ANSWERING_METHODS,
        default="greedy",
        help="decode answers, or choose the candidate answer of the highest log-probability, summed or averaged over "
        "its tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--shots",
        type=whole_number,
        default=0,
        metavar="K",
        help="put K examples of the set's training split, with picture and answer, before every question",
    )
    parser.add_argument(
        "--shared-prefix",
        choices=("true", "false"),
        default="true",
        help="compute prompts, system text and every picture once for all their questions; false answers every "
        "question by itself, with the same answers in float32 (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="answer again even if answers are there")
    return parser


def whole_number(text: str) -> int:
    """Returns a number of 0 or more.

    Raises:
        ValueError: If it is none.
    """
    number = int(text)
    if number < 0:
        raise ValueError(f"{number} is less than 0")
    return number
