"""``m2pt score``: score prediction files under named rules; no model, no torch."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.report.tables.scores import score_table
from lightning_m2pt.runs.scoring import EVERY_FITTING_RULE, check_rules, score_under
from lightning_m2pt.system.console import OUT, VerbParser, say


def argument_parser() -> VerbParser:
    """Returns the verb's flags; its help lists every rule."""
    parser = VerbParser(
        prog="m2pt score",
        description=__doc__,
        epilog=rules_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("predictions", type=Path, nargs="+", help="prediction files (predictions/<set>.jsonl)")
    parser.add_argument(
        "--rule",
        nargs="+",
        default=[],
        help=f"names of rules, or {EVERY_FITTING_RULE} for every rule that fits a file; without it each file's default",
    )
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="refuse files that do not answer the same questions as this one"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs instead of a table")
    return parser


def rules_text() -> str:
    """Returns one line a rule: its name, what it does, and the sets it is the default of."""
    width = max(map(len, RULES))
    lines = ["rules:"]
    for name, rule in RULES.items():
        default = f" [default of {', '.join(rule.default_of)}]" if rule.default_of else ""
        lines.append(f"  {name.ljust(width)}  {rule.about}{default}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    check_rules(own.rule)
    scores = [scored for path in own.predictions for scored in score_under(path, own.rule, own.against)]
    if own.json:
        say(json.dumps([{**scored.to_json(), "parsed": None} for scored in scores]))
    else:
        OUT.print(score_table(scores))
    return ExitCode.DONE
