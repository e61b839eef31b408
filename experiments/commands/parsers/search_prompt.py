"""``m2pt search-prompt``: search for a prompt that is words, by the loss on the validation split of the tuned tasks.

Writes FILE, which every verb takes as --prompt-text FILE, and beside it a record of the search, from which the same
command goes on after a stop. The cost is printed before anything is loaded. A budget counts rows of the language model;
random search gets the same one, and stands in the table beside what was found.
"""

from argparse import ArgumentTypeError
from pathlib import Path

from experiments.configuration.help import ExperimentVerbParser
from lightning_m2pt.commands.parsers.counts import positive, whole_number

EXAMPLES = (
    "m2pt search-prompt --config experiments/frozen.yaml --proposer exhaustive --output prompt.yaml",
    "m2pt search-prompt --run outputs/m2pt_base/<run> --proposer gcg --length 6 --budget 2000000 --output prompt.yaml",
    "m2pt evaluate --config experiments/frozen.yaml --prompt-text prompt.yaml",
)
PROPOSERS = ("random", "exhaustive", "autoprompt", "gcg", "beam", "pez", "grammar", "model", "reinforce")
POSITIONS = ("behind_question", "before_question", "system")
YES_NO = ("yes", "no")
DEFAULT_LENGTH = 4
MOST_TOKENS = 32
"""Of a text that a writing model gives, where ``--length`` says nothing else."""
MOST_PROMPTS = 100_000
"""A round."""


def argument_parser() -> ExperimentVerbParser:
    """Returns the flags that are not part of an experiment."""
    parser = ExperimentVerbParser("search-prompt", __doc__, EXAMPLES)
    parser.add_argument("--run", type=Path, metavar="DIR", help="a tuned run's folder; without it the untuned model")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the prompt's file, NAME.yaml")
    parser.add_argument(
        "--proposer",
        choices=PROPOSERS,
        default="gcg",
        help="random: whole prompts; exhaustive: every word in one place after another; autoprompt, gcg, beam: words "
        "that a gradient promises much of, tried exactly; pez: rows that move by the gradient at the nearest words; "
        "grammar: the sentences of --grammar; model: other words for the best texts, written by --model; reinforce: a "
        "distribution a place, moved by the loss alone (default gcg)",
    )
    parser.add_argument(
        "--length",
        type=positive,
        help=f"tokens of the prompt (default {DEFAULT_LENGTH}); a writing model's texts have at most so many (default "
        f"{MOST_TOKENS})",
    )
    add_writers(parser)
    parser.add_argument(
        "--position",
        choices=POSITIONS,
        default="behind_question",
        help="where it stands (default behind_question, where the picture and the question run once for all prompts)",
    )
    parser.add_argument(
        "--before-picture",
        choices=YES_NO,
        default="no",
        help="yes: also where a picture stands behind it, which costs more",
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=64,
        help="at most so many conversations of the validation split, drawn once (default 64)",
    )
    parser.add_argument("--budget", type=positive, default=1_000_000, help="rows of each search (default 1000000)")
    parser.add_argument("--yes", action="store_true", help="search even if it is expected to take more than an hour")
    parser.add_argument("--seed", type=whole_number, default=0, help="of samples, start and all draws (default 0)")
    parser.add_argument("--width", type=width, default=128, help="prompts a round of those that draw (default 128)")
    parser.add_argument("--top-k", type=positive, default=16, help="words tried for a place (default 16)")
    parser.add_argument("--beam", type=positive, default=4, help="prompts that beam and model keep (default 4)")
    parser.add_argument(
        "--answer-words",
        choices=YES_NO,
        default="no",
        help="yes: words of answers may stand in the prompt (default no)",
    )
    parser.add_argument(
        "--random-beside",
        choices=YES_NO,
        default="yes",
        help="no: without random search at the same budget (default yes)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the experiment's accelerator)")
    return parser


def add_writers(parser: ExperimentVerbParser) -> None:
    """Adds the flags of proposers that write texts."""
    parser.add_argument(
        "--grammar", metavar="FILE", help="for grammar: a YAML file of sentences and words, or general, or testbed"
    )
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="for model: folder of a causal language model that writes the texts"
    )
    parser.add_argument("--start", metavar="TEXT", help="for model: the text that is said in other words first")


def width(text: str) -> int:
    """Returns a number of prompts a round; argparse names the flag if it is none."""
    if positive(text) > MOST_PROMPTS:
        raise ArgumentTypeError(f"{text!r:.40} is more than {MOST_PROMPTS:,}")
    return int(text)
