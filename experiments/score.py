"""``m2pt score``: score prediction files under named rules; no model, no torch."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.console import OUT, VerbParser, say
from experiments.results_table import score_table
from experiments.scoring import score_file
from lightning_m2pt.errors import ExitCode


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    parser = VerbParser(prog="m2pt score", description=__doc__)
    parser.add_argument("predictions", type=Path, nargs="+", help="prediction files (predictions/<set>.jsonl)")
    parser.add_argument("--rule", nargs="+", help="names of rules; without it each file's default")
    parser.add_argument("--json", action="store_true", help="print JSON for programs instead of a table")
    own = parser.parse_args(list(arguments))
    scores = [score_file(path, rule)[1] for path in own.predictions for rule in own.rule or [None]]
    if own.json:
        say(json.dumps([{**scored.to_json(), "parsed": None} for scored in scores]))
    else:
        OUT.print(score_table(scores))
    return ExitCode.DONE
