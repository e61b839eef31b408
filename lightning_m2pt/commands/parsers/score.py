"""``m2pt score``: score prediction files under named rules; no model, no torch."""

import argparse
from pathlib import Path

from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.runs.scoring import EVERY_FITTING_RULE
from lightning_m2pt.system.console import VerbParser


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
        "--against",
        type=Path,
        metavar="FILE",
        help="refuse files that do not answer the same questions as this one; answers of LLaVA's "
        "scripts get their questions from it",
    )
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="LLaVA's question file, where its answers go by numbers (POPE)"
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
