"""``m2pt transfer``: use pixel prompts that were trained on one base on the pictures of another, untrained one.

The prompt is read from a run's folder or an adapter's, resized to the pictures of the base that ``--to`` names, and put
into its pictures; nothing of that base is trained. Its sets are answered untouched, composed without a prompt, with the
prompt, and with the prompt as a picture could hold it. Several prompts are used as their mean. What is answered is not
answered again; ``--trainer.devices N`` shares the questions out among N devices.
"""

from pathlib import Path

from experiments.commands.parsers.evaluate import UNCALIBRATED
from experiments.configuration.help import ExperimentVerbParser
from lightning_m2pt.commands.parsers.counts import whole_number

EXAMPLES = (
    "m2pt transfer --prompt outputs/NAME/<run> --to frozen --config experiments/backbones/testbed_patch12.yaml",
    "m2pt transfer --prompt RUN --prompt RUN --to tvp_vicuna7b --benchmarks pope --answer likelihood_sum",
)
INTERPOLATIONS = ("bilinear", "nearest")


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("transfer", __doc__, EXAMPLES)
    parser.add_argument(
        "--prompt",
        type=Path,
        nargs="+",  # a shell's outputs/NAME/pixel_* is several words
        action="extend",
        required=True,
        metavar="DIR",
        help="a run whose method has a pixel prompt, or an adapter's folder; of several, their mean",
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="EXPERIMENT",
        help="the experiment whose base and sets meet the prompt: a file, or the name of one that comes with the "
        "project; its own method is left out",
    )
    parser.add_argument("--benchmarks", metavar="NAMES", help="which of its sets, such as cifar10,pope (default: all)")
    parser.add_argument(
        "--answer",
        choices=UNCALIBRATED,
        default="greedy",
        help="as of m2pt evaluate (default: %(default)s)",
    )
    parser.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        default="bilinear",
        help="how a prompt is resized to the target's picture, never antialiased (default: %(default)s)",
    )
    parser.add_argument(
        "--random",
        type=whole_number,
        metavar="SEED",
        help="also show a random prompt of equal norm, drawn with this seed",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where answers, scores and the table go")
    parser.add_argument("--force", action="store_true", help="answer again even if answers are there")
    return parser
