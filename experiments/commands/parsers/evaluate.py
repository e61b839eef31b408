"""``m2pt evaluate``: answer and score every benchmark of an experiment, or of a tuned run.

With ``--run DIR`` the run's adapter answers, with ``--adapter DIR`` one that stands by itself, on the base and sets of
``--config``; ``--knock-out PART`` leaves a component out. With ``--config`` alone the experiment's own run answers if
it was tuned, and the untouched model if its method trains nothing. An evaluation that was cut off goes on where it
stopped. ``--trainer.devices N`` shares the questions out among N devices; with ``--run`` it is one if none is given.

With ``--shots K --shot-draws N`` every set is asked N times, each time with K other examples before all questions;
below stand mean, spread, best and worst of the N scores.
"""

from argparse import ArgumentTypeError
from pathlib import Path

from experiments.configuration.help import ExperimentVerbParser
from lightning_m2pt.commands.parsers.counts import positive, whole_number
from lightning_m2pt.commands.parsers.tuned import add_output_flag, add_tuned_flags

EXAMPLES = (
    "m2pt evaluate --run outputs/m2pt_base/<run> --knock-out visual_prompts",
    "m2pt evaluate --config experiments/frozen.yaml --benchmarks mme,pope",
    "m2pt evaluate --config experiments/frozen.yaml --benchmarks vsr --answer likelihood_sum --shots 2 --shot-draws 5",
)
UNCALIBRATED = ("greedy", "likelihood_sum", "likelihood_mean")
ANSWERING_METHODS = (*UNCALIBRATED, "contextual_calibration", "likelihood_pmi")
"""As ``AnsweringMethod``, whose module needs torch."""
CALIBRATION_PICTURES = ("mean", "none", "own")
"""As ``CalibrationPicture``."""
MOST_DRAWS = 1_000
"""Of examples."""


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("evaluate", __doc__, EXAMPLES)
    add_tuned_flags(parser, "a tuned run's folder")
    add_output_flag(parser)
    parser.add_argument(
        "--benchmarks",
        action="append",
        default=[],
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
        help="parts of the run's method to leave out, as m2pt params names them: visual_prompts, textual_prompts, "
        "interaction, pixel_prompt, ...",
    )
    add_answering_flags(parser)
    add_example_flags(parser)
    parser.add_argument(
        "--shared-prefix",
        choices=("true", "false"),
        default="true",
        help="compute prompts, system text and every picture once for all their questions; false answers every "
        "question by itself, with the same answers in float32 (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="answer again even if answers are there")
    return parser


def add_answering_flags(parser: ExperimentVerbParser) -> None:
    """Adds how questions are answered, and what calibrated ways set against a question."""
    parser.add_argument(
        "--answer",
        choices=ANSWERING_METHODS,
        default="greedy",
        help="decode answers, or choose the candidate answer of the highest log-probability, summed or averaged over "
        "its tokens; or of the highest sum less that behind a question without content (contextual_calibration), or "
        "behind the words before an answer alone (likelihood_pmi) (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration-text",
        nargs="+",
        metavar="TEXT",
        help="contextual_calibration: what stands in the question's place; of several texts the mean counts; "
        "{question} is the question (default: N/A)",
    )
    parser.add_argument(
        "--calibration-picture",
        choices=CALIBRATION_PICTURES,
        help="contextual_calibration: a picture of the one colour that the base subtracts, no picture, or the "
        "question's own (default: mean)",
    )
    parser.add_argument(
        "--premise",
        metavar="TEXT",
        help="likelihood_pmi: words behind which an answer stands without a question (default: those that the template "
        "writes before an answer)",
    )


def add_example_flags(parser: ExperimentVerbParser) -> None:
    """Adds what stands before every question."""
    parser.add_argument(
        "--shots",
        type=whole_number,
        default=0,
        metavar="K",
        help="put K examples of the set's training split, with picture and answer, before every question",
    )
    parser.add_argument(
        "--shot-draws",
        type=number_of_draws,
        metavar="N",
        help="with --shots: ask with N draws of examples, the same K before all questions of a draw; their mean, "
        "spread, best and worst stand below",
    )
    parser.add_argument("--json", action="store_true", help="with --shot-draws: print their figures as JSON, last")


def number_of_draws(text: str) -> int:
    """Returns a number of draws of examples, each of which is an evaluation; argparse names the flag if it is none."""
    if positive(text) > MOST_DRAWS:
        raise ArgumentTypeError(f"{text!r:.40} is more than {MOST_DRAWS:,}")
    return int(text)
